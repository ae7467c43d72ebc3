#!/bin/bash
# The fast loop: unit and property tests and the tests of each crate, without a cluster. Arguments go to cargo test.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cargo_here
cd "$REPO"
# The server's tests run models: they need the library, and say so themselves when it is missing.
ORTOLAN_ONNXRUNTIME=${ORTOLAN_ONNXRUNTIME:-$("$REPO/scripts/onnxruntime.sh")/libonnxruntime.so}
export ORTOLAN_ONNXRUNTIME
# And real models, through pipelines.
"$REPO/scripts/models.sh" > /dev/null
step "unit and property tests" nice cargo test --workspace --exclude ortolan-tests --exclude ortolan-e2e --locked "$@"
