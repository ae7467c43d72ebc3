# shellcheck shell=bash
# The chart's life on a real API server (no node is needed): sourced by `scripts/chart.sh lifecycle`, which has set HELM, KUBECTL,
# CHART and WORK. The CRD belongs to the whole cluster, so it must not be there at the start; it is removed at the end, with all namespaces.
#
# Each test is a function whose name is the sentence that it proves. `expect WORDS COMMAND…` and `say_no WORDS COMMAND…` are the assertions.

CRD=inferenceservices.serving.ortolan.dev
PREFIX=ortolan-chart-$$
RELEASES=$WORK/releases
: > "$RELEASES"
MINE=''   # set once the cluster is known to be without Ortolan: from then on the CRD in it is ours to remove

helm() { "$HELM" "$@"; }
kubectl() { "$KUBECTL" "$@"; }

fail() { problem "${TEST//_/ }: $*"; return 1; }
expect() {
  local words=$1 out; shift
  out=$("$@" 2>&1) || { fail "“$*” failed: $out"; return 1; }
  case $out in *"$words"*) ;; *) fail "“$*” should say “$words” but says: $out" ;; esac
}
say_no() {
  local words=$1 out; shift
  if out=$("$@" 2>&1); then fail "“$*” should fail"; return 1; fi
  case $out in *"$words"*) ;; *) fail "“$*” should fail with “$words” but says: $out" ;; esac
}
equal() { [ "$1" = "$2" ] || fail "$3: “$1” is not “$2”"; }

# namespace LETTER: a namespace of this run, watched by PodSecurity: what would violate "restricted" comes back as a warning.
namespace() {
  kubectl create namespace "$PREFIX-$1" > /dev/null
  kubectl label namespace "$PREFIX-$1" pod-security.kubernetes.io/warn=restricted pod-security.kubernetes.io/enforce=restricted > /dev/null
}
# install NAME LETTER [OPTION...], without any flag that a person would not type
install() {
  local name=$1 at=$PREFIX-$2; shift 2
  printf '%s %s\n' "$name" "$at" >> "$RELEASES"
  helm install "$name" "${CHART_AT:-$CHART}" --namespace "$at" "$@" 2>&1
}
upgrade() { local name=$1 at=$PREFIX-$2; shift 2; helm upgrade "$name" "${CHART_AT:-$CHART}" --namespace "$at" "$@" 2>&1; }
uninstall() { helm uninstall "$1" --namespace "$PREFIX-$2" 2>&1; }

crd() { kubectl get crd "$CRD" -o "jsonpath=$1"; }
owner() { crd '{.metadata.annotations.meta\.helm\.sh/release-namespace}/{.metadata.annotations.meta\.helm\.sh/release-name}'; }
columns() { crd '{.spec.versions[0].additionalPrinterColumns[*].name}'; }
remove_crd() { kubectl delete crd "$CRD" --ignore-not-found > /dev/null; }

# next_chart COLUMN: the chart as a later version would be, with a printer column more.
next_chart() {
  rm -rf "$WORK/next"; cp -r "$CHART" "$WORK/next"
  sed -i "s/^  - additionalPrinterColumns:\$/&\n    - jsonPath: .metadata.uid\n      name: $1\n      type: string/" "$WORK/next/files/crds/inferenceservices.yaml"
  CHART_AT=$WORK/next
}

service() {
  kubectl apply --server-side -n "$PREFIX-$1" -f - > /dev/null <<'Y'
apiVersion: serving.ortolan.dev/v1alpha1
kind: InferenceService
metadata: {name: kept}
spec: {model: {uri: "https://models.example.com/model.onnx"}, suspend: true}
Y
}
service_uid() { kubectl get oisvc kept -n "$PREFIX-$1" -o 'jsonpath={.metadata.uid}'; }

install_upgrade_and_uninstall_leave_only_the_crd_and_its_services() {
  local uid left
  namespace a
  expect 'is installed' install first a || return 1
  # The namespace enforces PodSecurity "restricted": the pod of `helm test` must be let in.
  helm get hooks first --namespace "$PREFIX-a" > "$WORK/hooks.yaml"
  expect 'pod/first-ortolan-operator-check' kubectl apply --server-side --dry-run=server -f "$WORK/hooks.yaml" || return 1
  service a; uid=$(service_uid a)
  next_chart Later
  expect 'is upgraded' upgrade first a --set concurrency=32 || return 1
  equal "$(columns | cut -d' ' -f1)" Later "the upgrade must bring the new CRD" || return 1
  expect 'kept due to the resource policy' uninstall first a || return 1
  left=$(kubectl get deployments,services,serviceaccounts,poddisruptionbudgets,roles,rolebindings,secrets -n "$PREFIX-a" -o name | grep -v '^serviceaccount/default$' || true)
  equal "$left" "" "left in the namespace" || return 1
  left=$(kubectl get clusterroles,clusterrolebindings -o name -l app.kubernetes.io/instance=first)
  equal "$left" "" "left in the cluster" || return 1
  equal "$(service_uid a)" "$uid" "the InferenceService must survive"
}

another_name_and_namespace_takes_the_kept_crd_over_without_a_flag() {
  local uid crd_uid
  namespace b
  uid=$(service_uid a); crd_uid=$(crd '{.metadata.uid}')
  next_chart Adopted
  expect 'this release took it over' install second b || return 1
  equal "$(owner)" "$PREFIX-b/second" "the CRD's owner" || return 1
  equal "$(columns | cut -d' ' -f1)" Adopted "taking over must upgrade the CRD" || return 1
  next_chart After
  expect 'is upgraded' upgrade second b --set crds.keep=false || return 1
  equal "$(columns | cut -d' ' -f1)" After "the next upgrade must upgrade the CRD" || return 1
  expect 'Rollback was a success' helm rollback second 1 --namespace "$PREFIX-b" || return 1
  equal "$(crd '{.metadata.uid}')" "$crd_uid" "a rollback must not replace the CRD" || return 1
  expect 'is upgraded' upgrade second b --set crds.keep=false || return 1
  expect 'uninstalled' uninstall second b || return 1
  equal "$(crd '{.metadata.uid}') $(service_uid a)" "$crd_uid $uid" "the CRD and the service must be the same objects all the way"
}

two_namespaced_installs_share_the_crd() {
  namespace c; namespace d
  CHART_AT=''
  expect 'this release took it over' install ortolan c --set namespaced=true || return 1
  expect 'was left as it is' install ortolan d --set namespaced=true || return 1
  equal "$(owner)" "$PREFIX-c/ortolan" "the CRD's owner" || return 1
  expect 'is upgraded' upgrade ortolan d --set namespaced=true || return 1
  expect 'is upgraded' upgrade ortolan c --set namespaced=true || return 1
  equal "$(kubectl get clusterroles,clusterrolebindings -o name -l app.kubernetes.io/name=ortolan)" "" "a namespaced install must have no ClusterRole" || return 1
  expect 'uninstalled' uninstall ortolan c || return 1
  expect 'this release took it over' upgrade ortolan d --set namespaced=true || return 1
  equal "$(owner)" "$PREFIX-d/ortolan" "the CRD's owner" || return 1
  may yes d get inferenceservices.serving.ortolan.dev d && may yes d patch deployments.apps d && may yes d create leases.coordination.k8s.io d &&
    may no d get inferenceservices.serving.ortolan.dev c && may no d list pods c || return 1
  expect 'uninstalled' uninstall ortolan d
}

# may yes|no LETTER VERB RESOURCE[:SUBRESOURCE][/NAME] LETTER: the operator of the release in the first namespace, in the second one
may() {
  local got resource=$4 sub=''
  case $4 in *:*) resource=${4%:*} sub=--subresource=${4#*:} ;; esac
  got=$(kubectl auth can-i "$3" "$resource" ${sub:+"$sub"} -n "$PREFIX-$5" --as "system:serviceaccount:$PREFIX-$2:ortolan-operator" 2>/dev/null) || true
  [ "$got" = "$1" ] || { fail "the operator: $3 $4 in $5 is “$got”, must be “$1”"; }
}

the_operator_may_do_its_work_and_nothing_else() {
  namespace e
  expect 'is installed' install ortolan e || return 1
  may yes e patch inferenceservices.serving.ortolan.dev:status a && may yes e create deployments.apps a && may yes e delete pods a &&
    may yes e create events.events.k8s.io a && may yes e patch leases.coordination.k8s.io/ortolan-operator e || return 1
  may no e get secrets a && may no e get secrets e && may no e create pods a && may no e get pods:log a && may no e create pods:exec a &&
    may no e update inferenceservices.serving.ortolan.dev a && may no e patch leases.coordination.k8s.io/another e &&
    may no e create leases.coordination.k8s.io a && may no e create clusterroles.rbac.authorization.k8s.io a &&
    may no e get customresourcedefinitions.apiextensions.k8s.io a && may no e create serviceaccounts:token a || return 1
  expect 'uninstalled' uninstall ortolan e
}

# earlier_chart: as charts were whose operator showed the routers a Secret.
earlier_chart() {
  rm -rf "$WORK/earlier"; cp -r "$CHART" "$WORK/earlier"
  sed -i '/^          projected:$/,/^                  path: token$/c\          secret: {secretName: ortolan-router-stats, items: [{key: token, path: token}]}' "$WORK/earlier/templates/deployment.yaml"
  sed -i 's/^  clusterDomain: .*/&\n  stats: {existingSecret: ""}/' "$WORK/earlier/values.yaml"
  CHART_AT=$WORK/earlier
}
# shown PATH: of the volume with the operator's token.
shown() { kubectl get deployment ortolan-operator -n "$PREFIX-j" -o "jsonpath={.spec.template.spec.volumes[?(@.name==\"stats-token\")]$1}"; }

the_operator_shows_the_routers_a_token_of_its_own_account_and_an_earlier_release_goes_over_to_it() {
  local out account=system:serviceaccount:$PREFIX-j:ortolan-router
  namespace j
  earlier_chart
  expect 'is installed' install ortolan j || return 1
  equal "$(shown .secret.secretName)" ortolan-router-stats "the earlier chart's volume" || return 1
  CHART_AT=''
  expect 'is upgraded' upgrade ortolan j --reuse-values || return 1
  equal "$(shown .secret)" "" "nothing is left of the Secret" || return 1
  equal "$(shown '.projected.sources[*].serviceAccountToken.audience')" ortolan-router-stats "whom the token is for" || return 1
  equal "$(kubectl get secrets -n "$PREFIX-j" -l app.kubernetes.io/name=ortolan -o name)" "" "the chart makes no Secret" || return 1
  out=$(kubectl get deployment ortolan-router -n "$PREFIX-j" -o 'jsonpath={.spec.template.spec.containers[0].args}')
  case $out in *"\"--stats-reader=$PREFIX-j/ortolan-operator\""*) ;; *) fail "the routers must take the operator's account: $out"; return 1 ;; esac
  # By a role that every cluster has; we grant nothing.
  equal "$(kubectl auth can-i get /openid/v1/jwks --as "$account" --as-group system:serviceaccounts)" yes "the routers may read the API server's keys" || return 1
  may yes j watch endpointslices.discovery.k8s.io j && may no j list endpointslices.discovery.k8s.io a && may no j create serviceaccounts:token j || return 1
  expect 'uninstalled' uninstall ortolan j
}

people_read_or_write_by_their_role() {
  local role person
  namespace i
  expect 'is installed' install ortolan i || return 1
  for role in view edit admin; do
    kubectl create rolebinding "$role" --clusterrole="ortolan-$role" --user="$role" -n "$PREFIX-i" > /dev/null
    equal "$(kubectl get clusterrole "ortolan-$role" -o "jsonpath={.metadata.labels.rbac\.authorization\.k8s\.io/aggregate-to-$role}")" true "aggregation to $role" || return 1
  done
  for person in view edit admin; do person yes "$person" list inferenceservices && person no "$person" patch inferenceservices --subresource=status || return 1; done
  person no view create inferenceservices && person no view delete inferenceservices &&
    person yes edit create inferenceservices && person yes edit delete inferenceservices && person yes admin patch inferenceservices || return 1
  expect 'uninstalled' uninstall ortolan i
}
# person yes|no WHO VERB RESOURCE [OPTION...]
person() {
  local want=$1 who=$2 got; shift 2
  got=$(kubectl auth can-i "$@" -n "$PREFIX-i" --as "$who" 2>/dev/null) || true
  [ "$got" = "$want" ] || fail "$who: $* is “$got”, must be “$want”"
}

a_crd_that_is_not_of_helm_is_left_alone_and_an_old_one_is_refused() {
  remove_crd; namespace f
  kubectl apply --server-side -f "$CHART/files/crds/inferenceservices.yaml" > /dev/null
  expect 'something other than Helm (kubectl or a GitOps tool) looks after it' install ortolan f || return 1
  expect 'uninstalled' uninstall ortolan f || return 1
  kubectl label crd "$CRD" app.kubernetes.io/version=0.0.9 > /dev/null
  say_no 'is of version 0.0.9, this chart needs' install ortolan f || return 1
  expect 'is installed' install ortolan f --set crds.install=false || return 1
  expect 'uninstalled' uninstall ortolan f
}

a_release_that_made_the_crd_removes_it_with_keep_false() {
  remove_crd; namespace g
  expect 'is installed' install ortolan g --set crds.keep=false || return 1
  expect 'uninstalled' uninstall ortolan g || return 1
  kubectl wait --for=delete "crd/$CRD" --timeout=30s > /dev/null || fail "the CRD is still there"
}

applying_the_rendered_yaml_twice_changes_nothing() {
  local case first second
  remove_crd; namespace h; namespace team-a
  for case in $CASES; do
    # shellcheck disable=SC2046
    KUBECONFIG=/dev/null helm template ortolan "$CHART" --namespace "$PREFIX-h" --values "$TESTS/$case.yaml" --no-hooks \
      --set metrics.serviceMonitor.enabled=false $([ "$case" = watched ] && echo --set "watchNamespace=$PREFIX-team-a") > "$WORK/rendered.yaml"
    first=$(kubectl apply --server-side -f "$WORK/rendered.yaml" 2>&1) || { fail "$case: the first apply fails: $first"; return 1; }
    case $first in *Warning:*) fail "$case: PodSecurity warns: $first" || return 1 ;; esac
    first=$(versions_of "$WORK/rendered.yaml")
    kubectl apply --server-side -f "$WORK/rendered.yaml" > /dev/null || return 1
    second=$(versions_of "$WORK/rendered.yaml")
    equal "$second" "$first" "$case: the second apply wrote something" || return 1
    kubectl diff --server-side -f "$WORK/rendered.yaml" > "$WORK/diff" 2>&1 || { fail "$case: kubectl diff finds $(head -n 20 "$WORK/diff")"; return 1; }
    kubectl delete -f "$WORK/rendered.yaml" --wait=false > /dev/null
    remove_crd
  done
}
# Generations, not resource versions: controllers write status meanwhile.
versions_of() { kubectl get -f "$1" -o 'jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.uid} {.metadata.generation} {range .metadata.managedFields[?(@.operation=="Apply")]}{.time} {end}{"\n"}{end}'; }

# A failed test leaves its releases behind, which would make the next ones fail too.
remove_releases() {
  local name at
  while read -r name at; do "$HELM" uninstall "$name" --namespace "$at" --ignore-not-found --no-hooks > /dev/null 2>&1 || true; done < "$RELEASES"
  : > "$RELEASES"
}

clean_up() {
  local letter
  [ -n "$MINE" ] || return 0
  remove_releases
  remove_crd || true
  # shellcheck disable=SC2046
  kubectl delete namespaces --wait=false --ignore-not-found $(for letter in a b c d e f g h i j team-a; do echo "$PREFIX-$letter"; done) > /dev/null 2>&1 || true
}

lifecycle() {
  kubectl version > /dev/null || die "The API server of $KUBECONFIG does not answer."
  if kubectl get crd "$CRD" > /dev/null 2>&1; then die "The CRD $CRD is in the cluster already: use a cluster without Ortolan, the test removes it."; fi
  MINE=yes
  for TEST in \
    install_upgrade_and_uninstall_leave_only_the_crd_and_its_services \
    another_name_and_namespace_takes_the_kept_crd_over_without_a_flag \
    two_namespaced_installs_share_the_crd \
    the_operator_may_do_its_work_and_nothing_else \
    the_operator_shows_the_routers_a_token_of_its_own_account_and_an_earlier_release_goes_over_to_it \
    people_read_or_write_by_their_role \
    a_crd_that_is_not_of_helm_is_left_alone_and_an_old_one_is_refused \
    a_release_that_made_the_crd_removes_it_with_keep_false \
    applying_the_rendered_yaml_twice_changes_nothing
  do
    CHART_AT=''
    if "$TEST"; then log "ok      ${TEST//_/ }"; else FAILED=1; log "FAILED  ${TEST//_/ }"; fi
    remove_releases
  done
  [ "$FAILED" = 0 ] || exit 1
}
