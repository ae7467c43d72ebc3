#!/bin/bash
# make test: installs what is missing and runs everything. Prints how long each step took.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
export ORTOLAN_TIMINGS=${ORTOLAN_TIMINGS:-$ORTOLAN_LOGS/timings}; : > "$ORTOLAN_TIMINGS"
mine=$$
finish() {
  local rc=$?
  [ "$$" = "$mine" ] || exit "$rc"
  # The line of work beside this one ends with it; it is a process of ours.
  if [ -n "${beside:-}" ] && kill -0 "$beside" 2>/dev/null; then kill "$beside" 2>/dev/null || true; wait "$beside" 2>/dev/null || true; fi
  print_timings "$ORTOLAN_TIMINGS"
  if [ "$rc" = 0 ]; then log "All passed."; else log "Failed. Logs: $ORTOLAN_LOGS"; fi
  exit "$rc"
}
trap finish EXIT
trap 'exit 130' INT TERM

step "install what is missing" "$REPO/scripts/install.sh" all
cargo_here
# The cluster's programs are Go and wait for the network at first: they are built beside Rust's checks.
beside_log=$ORTOLAN_LOGS/cluster-build.log
ORTOLAN_DEPTH=1 "$REPO/e2e/cluster/build" > "$beside_log" 2>&1 & beside=$!
step "lint" "$REPO/scripts/lint.sh"
step "unit" "$REPO/scripts/unit.sh"
step "wait for the cluster's programs" wait "$beside" || { tail -n 20 "$beside_log" >&2; die "the cluster's programs could not be built; the whole log: $beside_log"; }
beside=
PATH=$("$REPO/e2e/cluster/build"):$PATH
step "chart" "$REPO/scripts/chart.sh" check
step "chart on an API server" "$REPO/scripts/chart.sh" lifecycle
step "API-server tests" "$REPO/tests/run"
step "end to end" "$REPO/e2e/run"
