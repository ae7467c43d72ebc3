#!/bin/bash
# The server's queue in every order in which its threads may run (loom), up to three changes of thread that nobody had to make. A build of its
# own, since the locks are loom's then.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cargo_here
cd "$REPO"
export CARGO_TARGET_DIR=${ORTOLAN_LOOM_TARGET_DIR:-$ORTOLAN_CACHE/loom-target} LOOM_MAX_PREEMPTIONS=${LOOM_MAX_PREEMPTIONS:-3}
export RUSTFLAGS="${RUSTFLAGS:-} --cfg ortolan_loom" CARGO_PROFILE_TEST_OPT_LEVEL=1 CARGO_INCREMENTAL=0
step "the queue in every order" nice cargo test -p ortolan-server --lib --locked in_every_order "$@"
