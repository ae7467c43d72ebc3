#!/bin/bash
# make demo: from nothing to a prediction. Installs what is missing, builds, gets a cluster of its own (it stays up), installs the chart,
# applies the example and sends a photograph. A second run takes seconds.
#   scripts/demo.sh [stop]
# ORTOLAN_DEMO_KUBECONFIG=FILE: use that cluster in place of our own (its nodes must be able to pull the images).
set -euo pipefail
. "$(dirname "$0")/lib.sh"
system=ortolan-system
forward=''
trap '[ -z "$forward" ] || kill "$forward" 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM

if [ "${1:-}" = stop ]; then
  "$REPO/e2e/cluster/down" demo
  log "The demo cluster is gone. What was built stays in $ORTOLAN_CACHE (make clean removes it)."
  exit 0
fi
[ "$#" = 0 ] || { sed -n 2,5p "$0" >&2; exit 2; }

programs() { "$REPO/e2e/cluster/build" > "$ORTOLAN_LOGS/cluster-bin.path"; }
cluster() {
  if [ -n "${ORTOLAN_DEMO_KUBECONFIG:-}" ]; then KUBECONFIG=$ORTOLAN_DEMO_KUBECONFIG
  else
    "$REPO/e2e/cluster/up" demo > "$ORTOLAN_LOGS/demo.env" || return 1
    # shellcheck source=/dev/null
    . "$ORTOLAN_LOGS/demo.env"
    quiet demo-load "$REPO/e2e/cluster/load" demo "$ORTOLAN_CACHE"/images/{operator,router,server,model-store}.tar || return 1
  fi
  export KUBECONFIG
}
chart() {
  quiet demo-chart helm upgrade --install ortolan "$REPO/charts/ortolan" --namespace "$system" --create-namespace --wait --timeout 120s \
    --set images.registry="${prefix%%/*}" --set images.tag="$tag" --set images.operator="${prefix#*/}/operator" --set images.router="${prefix#*/}/router" --set images.server.cpu="${prefix#*/}/server"
}
# ready NAMESPACE OBJECT CONDITION: what does not become ready within the time is described, so that the reason stands on the screen.
ready() {
  kubectl -n "$1" wait --for="condition=$3" "$2" --timeout=180s >/dev/null && return 0
  kubectl -n "$1" describe "$2" >&2; kubectl -n "$1" get pods -o wide >&2; kubectl -n "$1" get events --sort-by=.lastTimestamp | tail -n 15 >&2
  return 1
}
example() {
  kubectl apply -f "$REPO/examples/model-store.yaml" >/dev/null && ready ortolan-models deployment/model-store Available &&
  kubectl apply -n default -f "$REPO/examples/efficientnet.yaml" && ready default oisvc/efficientnet Ready
}
# The photograph goes in through 127.0.0.1 and a router.
predict() {
  local port='' answer
  : > "$ORTOLAN_LOGS/demo-forward.log"   # that of the last run names a port that is gone
  kubectl -n "$system" port-forward service/ortolan-router :80 --address 127.0.0.1 > "$ORTOLAN_LOGS/demo-forward.log" 2>&1 & forward=$!
  for _ in {1..100}; do
    port=$(sed -n 's/^Forwarding from 127.0.0.1:\([0-9]*\).*/\1/p' "$ORTOLAN_LOGS/demo-forward.log"); [ -z "$port" ] || break; sleep 0.1
  done
  [ -n "$port" ] || die "kubectl port-forward did not start: see $ORTOLAN_LOGS/demo-forward.log"
  answer=$(curl --noproxy '*' -sS --fail-with-body --max-time 30 --retry 5 --retry-connrefused --data-binary "@$photograph" "http://127.0.0.1:$port/default/efficientnet/predict/efficientnet") || die "the prediction failed: $answer"
  kill "$forward"; forward=''
  printf '%s' "$answer" > "$ORTOLAN_LOGS/demo-answer.json"
}

prefix=${ORTOLAN_IMAGE_PREFIX:-localhost/ortolan} tag=${ORTOLAN_IMAGE_TAG:-dev}
t0=$(now_ms)
if [ -z "${ORTOLAN_DEMO_KUBECONFIG:-}" ]; then need_root "A cluster on this machine (else set ORTOLAN_DEMO_KUBECONFIG to one of yours)"; fi
step "install what is missing" "$REPO/scripts/install.sh" demo
# The cluster's programs (Go) and ours (Rust) build beside each other: each waits for the network at times.
programs & beside=$!
step "images" "$REPO/scripts/images.sh" || { kill "$beside" 2>/dev/null || true; exit 1; }
step "programs of the cluster" wait "$beside"
PATH=$(cat "$ORTOLAN_LOGS/cluster-bin.path"):$PATH
photograph=$("$REPO/scripts/models.sh")/flower.jpg
step "cluster" cluster
step "chart" chart
step "example" example
step "prediction" predict
log ""
kubectl -n default get oisvc >&2
log ""
log "$(basename "$photograph") is"
jq -r '.predictions[] | "  \(.probability * 1000 | round / 10) %\t\(.label)"' "$ORTOLAN_LOGS/demo-answer.json"
log "
In all: $(elapsed $(($(now_ms) - t0))). Go on with
  export KUBECONFIG=$KUBECONFIG PATH=$(cat "$ORTOLAN_LOGS/cluster-bin.path"):\$PATH
  kubectl get oisvc
  kubectl describe oisvc efficientnet
  kubectl -n $system port-forward service/ortolan-router 8080:80 &
  curl --data-binary @$photograph http://127.0.0.1:8080/default/efficientnet/predict/efficientnet
and with new versions that are promoted, or taken back, by themselves: make demo-canary
Stop it: make demo-stop"
