#!/bin/bash
# The CRDs: from the Rust types to crds/*.yaml, and from there into the chart.
#   scripts/crd.sh          generates crds/inferenceservices.yaml and docs/api.md, and copies the former to charts/ortolan/files/crds
#   scripts/crd.sh copy     only copies
#   scripts/crd.sh check    fails when the chart's copy differs (a test of the crate does the same for the types and crds/*.yaml)
set -euo pipefail
. "$(dirname "$0")/lib.sh"
CHART_CRDS=$REPO/charts/ortolan/files/crds

generate() {
  local new
  cargo_here
  new=$(mktemp)
  (cd "$REPO" && cargo run --quiet -p ortolan-crds --example generate) > "$new" || { rm -f "$new"; die "The CRDs could not be generated: see the error above."; }
  chmod 644 "$new"; mv "$new" "$REPO/crds/inferenceservices.yaml"
  (cd "$REPO" && cargo run --quiet -p ortolan-crds --example generate -- reference) > "$REPO/docs/api.md"
}

copy() {
  mkdir -p "$CHART_CRDS"
  rm -f "$CHART_CRDS"/*.yaml
  cp "$REPO"/crds/*.yaml "$CHART_CRDS"/
}

check() {
  local difference
  difference=$(diff -ru "$REPO/crds" "$CHART_CRDS" --exclude='*.rs' --exclude='*.toml' --exclude=src --exclude=tests --exclude=examples) && return 0
  printf '%s\n' "$difference" | head -n 40 >&2
  die "charts/ortolan/files/crds is not what crds/*.yaml holds: run scripts/crd.sh copy and commit."
}

case ${1:-} in
  "") generate; copy ;;
  copy) copy ;;
  check) check ;;
  *) die "Usage: scripts/crd.sh [copy|check]" ;;
esac
