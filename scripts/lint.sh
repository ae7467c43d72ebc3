#!/bin/bash
# What can be said about the code without running it: format, clippy, the purity of the core, the dependencies, the scripts, the docs.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cargo_here
cd "$REPO"
step "rustfmt" cargo fmt --all --check || die "run: cargo fmt --all"
step "clippy" nice cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
# Alone, because features unify in a workspace build: only so does the compiler show that the core needs no client and no runtime.
step "the core on its own" nice cargo check -p ortolan-core --locked --quiet
# The tests run with traces, as the images do.
step "the server without traces" nice cargo check -p ortolan-server --no-default-features --locked --quiet
deny=$ORTOLAN_CACHE/tools/cargo-deny-$CARGO_DENY_VERSION/bin/cargo-deny
[ -x "$deny" ] || deny=$(command -v cargo-deny) || die "cargo-deny is missing: scripts/install.sh test"
step "cargo deny" quiet deny "$deny" --all-features check --hide-inclusion-graph bans licenses sources
# 2034: what a sourced file sets for others; 1111: quotation marks in sentences; 1091: files that are written at run time.
shells() { git ls-files | xargs grep -lE '^#!/bin/bash|^# shellcheck shell' | xargs shellcheck --severity=warning --external-sources --source-path=SCRIPTDIR --exclude=SC1091,SC1111,SC2034; }
have shellcheck || die "shellcheck is missing: run scripts/install.sh test"
step "shell" shells
step "docs" "$REPO/scripts/docs.sh" check
