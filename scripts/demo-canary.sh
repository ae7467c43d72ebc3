#!/bin/bash
# make demo-canary: goes on where make demo ends. While requests come, a good version of a model is promoted and a silently wrong one (it
# answers 200, quickly, and wrong) is taken back; shown is what a person sees, and at the end what the clients saw. About three minutes.
# ORTOLAN_DEMO_KUBECONFIG=FILE: as for make demo.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
[ "$#" = 0 ] || { sed -n 2,4p "$0" >&2; exit 2; }
system=ortolan-system name=flowers examples=$REPO/examples/canary
work=$(mktemp -d) running=()
finish() {
  local pid
  for pid in "${running[@]}"; do kill "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

command_ortolan() { (cd "$REPO" && nice cargo build --quiet --locked -p ortolan); }

# The way in: to a router, which splits what comes over the versions.
forward() {
  kubectl -n "$system" port-forward service/ortolan-router :80 --address 127.0.0.1 > "$work/forward" 2>&1 & running+=($!)
  for _ in {1..100}; do
    port=$(sed -n 's/^Forwarding from 127.0.0.1:\([0-9]*\).*/\1/p' "$work/forward"); [ -z "$port" ] || return 0; sleep 0.1
  done
  die "kubectl port-forward did not start: $(cat "$work/forward")"
}

# Two clients, one with a flower and one with a palace, five requests a second each, which never try again. A line of an answer and one of its code.
clients() {
  local photograph
  for photograph in flower china; do
    curl --noproxy '*' -s --rate 300/m --max-time 30 --data-binary "@$photographs/$photograph.jpg" -w '\n%{http_code}\n' \
      "http://127.0.0.1:$port/default/$name/predict/$name?[1-100000]" > "$work/$photograph.answers" 2>/dev/null & running+=($!)
  done
}
# seen FLOWER|CHINA FROM: codes and first labels of the answers after the line FROM, with their counts.
seen() {
  tail -n "+$(($2 + 1))" "$work/$1.answers" | { grep -oE '^([0-9]{3}|\{.*"label":"[^"]*")' || true; } |
    sed -E 's/^\{.*"predictions":\[\{"label":"([^"]*)".*/“\1”/' | sort | uniq -c | sort -rn | awk '{n = $1; $1 = ""; printf "%s%d ×%s", sep, n, $0; sep = ", "}'
}
lines() { wc -l < "$work/$1.answers"; }
tell_clients() {
  log "    clients with a flower saw  $(seen flower "$1")"
  log "    clients with a palace saw  $(seen china "$2")"
}
# Not one answer that was none, from the first request on.
all_answered() {
  local failed
  failed=$(cat "$work"/*.answers | grep -E '^[0-9]{3}$' | grep -cv '^200$' || true)
  [ "$failed" = 0 ] || die "$failed requests were not answered with 200"
}

# rollout FILE CODE: applies a version and follows what becomes of it; `ortolan rollout status` has to end with CODE.
rollout() {
  local code=0 flowers palaces
  flowers=$(lines flower) palaces=$(lines china)
  log "
\$ kubectl apply -f ${1#"$REPO"/}"
  kubectl apply -n default -f "$1" >&2
  log "\$ ortolan rollout status $name"
  "$ortolan" -n default rollout status "$name" --timeout 5m >&2 || code=$?
  [ "$code" = "$2" ] || { "$ortolan" -n default status "$name" >&2; die "the rollout was expected to end with $2, not $code"; }
  tell_clients "$flowers" "$palaces"
  all_answered
}
evidence() {
  log "
\$ ortolan status $name"
  "$ortolan" -n default status "$name" >&2
  log "
\$ kubectl describe oisvc $name"
  kubectl -n default describe oisvc "$name" | sed -n '/^Events:/,$p' >&2
}

step "make demo" "$REPO/scripts/demo.sh" >&2
PATH=$(cat "$ORTOLAN_LOGS/cluster-bin.path"):$PATH
if [ -n "${ORTOLAN_DEMO_KUBECONFIG:-}" ]; then KUBECONFIG=$ORTOLAN_DEMO_KUBECONFIG; else . "$ORTOLAN_LOGS/demo.env"; fi
export KUBECONFIG
photographs=$("$REPO/scripts/models.sh")
cargo_here
step "the command ortolan" command_ortolan
ortolan=$CARGO_TARGET_DIR/debug/ortolan

kubectl -n default delete oisvc "$name" --ignore-not-found --wait >/dev/null
log "
\$ kubectl apply -f ${examples#"$REPO"/}/1-first.yaml"
kubectl apply -n default -f "$examples/1-first.yaml" >&2
"$ortolan" -n default wait "$name" --timeout 3m >&2
forward
clients
log "    ten requests a second begin"
sleep 5
rollout "$examples/2-good.yaml" 0
rollout "$examples/3-silently-wrong.yaml" 3
evidence
log "
The version that was wrong is in the spec still, and the one before it serves. In all $(($(lines flower) / 2 + $(lines china) / 2)) requests were answered, none failed. Go on with
  kubectl apply -f examples/canary/2-good.yaml     # what serves: the rollout's failure is forgotten
  kubectl delete oisvc $name"
