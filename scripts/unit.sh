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
step "unit and property tests" suite "$ORTOLAN_LOGS/unit.log" --workspace --exclude ortolan-tests --exclude ortolan-e2e --locked "$@"
# OpenVINO's plugin (53 MB) is fetched by those who want to try it: scripts/onnxruntime.sh openvino.
if [ -n "${ORTOLAN_TEST_OPENVINO_LIB:-}" ] || compgen -G "$ORTOLAN_CACHE/onnxruntime-openvino/*/libonnxruntime_providers_openvino_plugin.so" >/dev/null; then
  step "tests with OpenVINO" nice cargo test -p ortolan-server --locked --test providers -- --ignored openvino
else
  log "Left out: the tests with OpenVINO, whose plugin is not here (scripts/onnxruntime.sh openvino)"
fi
