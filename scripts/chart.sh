#!/bin/bash
# The chart's tests: without a cluster, and (lifecycle) on one.
#   scripts/chart.sh check     lint, goldens, schema, RBAC, values table, CRD copy, package: fails with what to do
#   scripts/chart.sh bless     writes the goldens (charts/tests/golden) and the values table of the chart's README
#   scripts/chart.sh package   packs the chart into $ORTOLAN_CACHE/charts
#   scripts/chart.sh lifecycle [KUBECONFIG]   installs, upgrades and uninstalls on a real API server (charts/tests/lifecycle.sh): the cluster
#                              of that file, which must not hold Ortolan, else an API server of its own that is gone afterwards
# Helm: ORTOLAN_HELM, else the one on the PATH, else the one of the test cluster's programs. Version 4.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

CHART=$REPO/charts/ortolan
TESTS=$REPO/charts/tests
CASES="default bare namespaced watched all-switches"
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
FAILED=0

find_helm() {
  local built
  HELM=${ORTOLAN_HELM:-$(command -v helm || true)}
  if [ -z "$HELM" ]; then
    built=$(compgen -G "$ORTOLAN_CACHE/cluster/bin-*/helm" | sort -V | tail -n1) || true
    HELM=$built
  fi
  [ -x "$HELM" ] || die "Helm 4 is needed: put helm on the PATH, set ORTOLAN_HELM, or run e2e/cluster/build."
  KUBECTL=$(dirname "$HELM")/kubectl
  [ -x "$KUBECTL" ] || KUBECTL=kubectl
  case $("$HELM" version --template '{{.Version}}') in v4.*) ;; *) die "$HELM is not version 4: the chart is tested with Helm $HELM_VERSION." ;; esac
}

problem() { printf '%serror:%s %s\n' "$_red" "$_plain" "$*" >&2; FAILED=1; }

# render CASE [OPTION...]: the whole YAML. No cluster, no kubeconfig: what `helm template` and a GitOps tool would see.
render() {
  local case=$1; shift
  KUBECONFIG=/dev/null "$HELM" template ortolan "$CHART" --namespace ortolan-system --values "$TESTS/$case.yaml" "$@"
}

# without_schema: the golden's form of it. The CRD's spec is thousands of generated lines and is compared on its own (crd_is_verbatim).
without_schema() {
  awk '/^# Source: /{crd = /templates\/crds.yaml/} crd && /^spec:$/ {print "spec: (as generated)"; skip = 1; next} /^---$/ {skip = 0} !skip'
}

goldens() {
  local mode=$1 case
  mkdir -p "$TESTS/golden"
  for case in $CASES; do
    render "$case" > "$WORK/$case.yaml" || { problem "the case $case does not render"; continue; }
    without_schema < "$WORK/$case.yaml" > "$WORK/$case.golden"
    if [ "$mode" = bless ]; then cp "$WORK/$case.golden" "$TESTS/golden/$case.yaml"
    elif ! diff -u "$TESTS/golden/$case.yaml" "$WORK/$case.golden" >&2; then problem "the golden $case.yaml differs: if that is meant, run scripts/chart.sh bless and commit."
    fi
  done
}

# The rendered spec of every CRD is the generated one, byte for byte.
crd_is_verbatim() {
  local file
  for file in "$CHART"/files/crds/*.yaml; do
    sed -n '/^spec:$/,$p' "$file" | sed '/^ *$/d' > "$WORK/crd.want"
    awk -v name="  name: $(sed -n 's/^  name: //p' "$file" | head -n1)" '
      /^---$/ {inside = 0; spec = 0} /^kind: CustomResourceDefinition$/ {inside = 1} inside && $0 == name {ours = 1}
      inside && ours && /^spec:$/ {spec = 1} spec' "$WORK/default.yaml" | sed '/^ *$/d' > "$WORK/crd.have"
    [ -s "$WORK/crd.want" ] || problem "$file holds no spec: run scripts/crd.sh"
    diff -u "$WORK/crd.want" "$WORK/crd.have" | head -n 20 >&2 || true
    cmp -s "$WORK/crd.want" "$WORK/crd.have" || problem "the chart changes the spec of $file"
  done
}

# What must hold for every case: rules without wildcards and secrets, pods that PodSecurity "restricted" admits, nothing random.
invariants() {
  local case yaml pods words
  for case in $CASES; do
    yaml=$WORK/$case.golden
    grep -nE '(\[|, |- )["'\'']?\*["'\'']?(\]|,|$)' "$yaml" >&2 && problem "$case: a wildcard in a rule"
    grep -nwE 'secrets|serviceaccounts|impersonate|escalate|bind' "$yaml" >&2 && problem "$case: a rule that reaches for secrets or other people's rights"
    render "$case" | without_schema | cmp -s - "$yaml" || problem "$case: two renderings differ"
    # The operator's pod, the check's, and where they are the routers'.
    pods=$((2 + $(grep -c 'name: router$' "$yaml" || true)))
    for words in 'runAsNonRoot: true' 'readOnlyRootFilesystem: true' 'drop: \[ALL\]' 'type: RuntimeDefault'; do
      [ "$(grep -c "$words" "$yaml")" = "$pods" ] || problem "$case: each of the $pods pods must be fit for PodSecurity restricted: $words"
    done
  done
  for case in namespaced watched; do
    grep -n 'kind: ClusterRole' "$WORK/$case.golden" >&2 && problem "$case: a namespaced install must not hold a ClusterRole"
  done
  [ "$(grep -c '^kind: CustomResourceDefinition' "$WORK/namespaced.golden")" = 0 ] || problem "namespaced: crds.install=false must leave the CRD out"
  grep -q 'helm.sh/resource-policy: keep' "$WORK/default.golden" || problem "default: the CRD must be kept on uninstall"
  ! grep -q 'helm.sh/resource-policy: keep' "$WORK/all-switches.golden" || problem "all-switches: crds.keep=false must not keep the CRD"
}

# refuses WORDS OPTION...: rendering fails, and says these words.
refuses() {
  local words=$1; shift
  if render default "$@" > "$WORK/refused" 2>&1; then problem "accepted, but must be refused: $*"
  elif ! grep -qF -- "$words" "$WORK/refused"; then problem "refused, but without the words “$words”: $* says"; cat "$WORK/refused" >&2
  fi
}

refusals() {
  refuses "additional properties 'replica' not allowed" --set replica=3
  refuses "additional properties 'gpu' not allowed" --set images.server.gpu=x
  refuses "at '/replicas': got string, want integer" --set-string replicas=3
  refuses "at '/namespaced': got string, want boolean" --set-string namespaced=true
  refuses "at '/logFormat': value must be one of 'json', 'text'" --set logFormat=xml
  refuses "at '/crds/keep'" --set crds.keep=maybe
  refuses "at '/watchNamespace'" --set namespaced=true,watchNamespace=Team_A
  refuses "at '/images/registry'" --set images.registry=registry.example.com/
  refuses "set namespaced=true to watch that namespace only" --set watchNamespace=team-a
  refuses "additional properties 'stat' not allowed" --set router.stat=x
  refuses "name the Secret with the routers' own in router.tls.secretName" --set router.enabled=true,router.tls.clientCA=true
  refuses "set router.clients.requestsPerSecond" --set router.enabled=true,router.clients.burst=5
  refuses "at '/router/clients/requestsPerSecond'" --set router.clients.requestsPerSecond=-1
  refuses "metrics.serviceMonitor.enabled needs metrics.service.enabled" --set metrics.serviceMonitor.enabled=true,metrics.service.enabled=false
}

# values.yaml as Helm reads it: a chart of one template that prints it.
values_table() {
  mkdir -p "$WORK/values/templates"
  printf 'apiVersion: v2\nname: values\nversion: 0.0.0\n' > "$WORK/values/Chart.yaml"
  cp "$CHART/values.yaml" "$WORK/values/"
  printf '{{ .Values | toJson }}\n' > "$WORK/values/templates/values.yaml"
  "$HELM" template values "$WORK/values" | sed -n '/^{/p' > "$WORK/values.json"
  python3 "$TESTS/values.py" "$1" "$WORK/values.json" "$CHART/values.schema.json" "$CHART/README.md" || problem "values: see above"
}

versions() {
  local want have
  want=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$REPO/Cargo.toml")
  have=$(sed -n 's/^appVersion: *"\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' "$CHART/Chart.yaml")
  [ "$want" = "$have" ] || problem "Chart.yaml says appVersion $have, the workspace is $want"
  grep -q "image: ortolan/operator:$want\$" "$CHART/Chart.yaml" || problem "Chart.yaml: artifacthub.io/images must name ortolan/operator:$want"
}

package() {
  mkdir -p "$1"
  "$HELM" package "$CHART" --destination "$1"
}

check() {
  "$REPO/scripts/crd.sh" check || FAILED=1
  "$HELM" lint --strict --quiet "$CHART" || problem "helm lint --strict finds fault"
  goldens check
  crd_is_verbatim
  invariants
  refusals
  values_table check
  versions
  package "$WORK/package" > /dev/null || problem "helm package fails"
  "$HELM" template ortolan "$WORK"/package/*.tgz --namespace ortolan-system | cmp -s - "$WORK/default.yaml" || problem "the packed chart renders something else (see .helmignore)"
  [ "$FAILED" = 0 ] || exit 1
  log "The chart is in order: $(echo "$CASES" | wc -w) goldens, schema, RBAC, values, CRD copy, package."
}

# A real API server and etcd of our own, on ports of their own; no root and no node are needed.
own_api_server() {
  "$REPO/e2e/cluster/up" chart --control-plane-only --index 7 > /dev/null
  trap 'end_lifecycle; "$REPO/e2e/cluster/down" chart --index 7' EXIT
  export KUBECONFIG=$ORTOLAN_CACHE/cluster/run/chart/admin.kubeconfig
}
end_lifecycle() { if declare -F clean_up > /dev/null; then clean_up; fi; rm -rf "$WORK"; }

lifecycle_on() {
  trap end_lifecycle EXIT
  if [ -z "${1:-}" ]; then own_api_server
  elif [ -r "$1" ]; then export KUBECONFIG=$1
  else die "$1 is no kubeconfig that can be read."
  fi
  find_helm
  # shellcheck source=charts/tests/lifecycle.sh
  . "$TESTS/lifecycle.sh"
  lifecycle
}

case ${1:-} in
  check) find_helm; check ;;
  bless) find_helm; goldens bless; values_table bless; [ "$FAILED" = 0 ] || exit 1 ;;
  package) find_helm; package "$ORTOLAN_CACHE/charts" ;;
  lifecycle) lifecycle_on "${2:-}" ;;
  *) die "Usage: scripts/chart.sh check|bless|package|lifecycle [KUBECONFIG]" ;;
esac
