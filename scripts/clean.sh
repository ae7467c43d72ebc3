#!/bin/bash
# Takes every cluster of ours down and removes what was built and downloaded: the cache folder.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
for run in "$ORTOLAN_CACHE"/cluster/run/*/; do
  if [ -f "$run/index" ]; then "$REPO/e2e/cluster/down" "$(basename "$run")" --index "$(cat "$run/index")"; fi
done
if [ -d "$ORTOLAN_CACHE/kind" ]; then "$REPO/e2e/kind/down"; fi
log "removing $ORTOLAN_CACHE"
rm -rf --one-file-system "$ORTOLAN_CACHE"
