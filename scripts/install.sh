#!/bin/bash
# Installs what building and testing need and what is missing here; does nothing when all is there. Debian or Ubuntu, as root or with sudo.
#   scripts/install.sh [build|demo|test|all]
#     build   to compile: a C linker, Rust, git, python3 with pip
#     demo    and what the images and the cluster need       (make demo)
#     test    to check: build, clippy, rustfmt, cargo-deny, shellcheck (make unit and lint)
#     all     all of these                                   (make test, e2e)
set -euo pipefail
. "$(dirname "$0")/lib.sh"
what=${1:-all}
checks='' cluster=''
case $what in build) ;; demo) cluster=1;; test) checks=1;; all) checks=1 cluster=1;; *) sed -n 2,7p "$0" >&2; exit 2;; esac
[ "$(uname)" = Linux ] || die "this script knows Debian and Ubuntu; elsewhere install Rust >= 1.95 with clippy and rustfmt, Go >= $GO_MINIMUM, kind and a Docker engine, and set ORTOLAN_E2E_KUBECONFIG to a cluster of yours"

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; elif have sudo; then sudo "$@"; else die "installing packages needs root: run this as root or install sudo"; fi; }
# Each line: a command or a file that shows that the package is there, and the package.
packages() {
  local command package
  PATH=$PATH:/usr/sbin:/sbin
  while read -r command package; do
    case $command in
      '') ;;
      py:*) python3 -c "import ${command#py:}" 2>/dev/null || echo "$package";;
      /*) compgen -G "$command" >/dev/null || echo "$package";;
      *) have "$command" || echo "$package";;
    esac
  done
}
needs() {
  cat <<'N'
cc gcc
/usr/include/stdio.h libc6-dev
git git
curl curl
python3 python3
py:pip python3-pip
py:ensurepip python3-venv
/etc/ssl/certs/ca-certificates.crt ca-certificates
flock util-linux
N
  [ -z "$checks" ] || printf '%s\n' 'shellcheck shellcheck' '/usr/lib/*/faketime/libfaketimeMT.so.1 libfaketime'
  [ -n "$cluster" ] || return 0
  cat <<'N'
objdump binutils
openssl openssl
ip iproute2
sysctl procps
containerd containerd
runc runc
iptables iptables
conntrack conntrack
mmdebstrap mmdebstrap
jq jq
N
  compgen -G '/usr/lib/cni/ptp' >/dev/null || [ -x /opt/cni/bin/ptp ] || echo "/usr/lib/cni/ptp containernetworking-plugins"
  if ! { have docker && docker info >/dev/null 2>&1; }; then echo "buildah buildah"; fi
}

missing=$(needs | packages | sort -u | tr '\n' ' ')
if [ -n "${missing// /}" ]; then
  have apt-get || die "these are missing, and only apt-get is known here: $missing"
  log "Installing with apt-get: $missing"
  quiet apt-update as_root apt-get -qq update || die "apt-get update failed; see $ORTOLAN_LOGS/apt-update.log"
  # shellcheck disable=SC2086
  quiet apt-install as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing
  missing=$(needs | packages | sort -u | tr '\n' ' ')
  [ -z "${missing// /}" ] || die "apt-get installed without an error, but these are still not found: $missing"
fi

# Rust: what is on the machine is used when it is new enough.
[ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ] && PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
rust_minimum=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$REPO/Cargo.toml")
if ! have rustc; then
  log "Installing Rust with rustup"
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs > "$ORTOLAN_LOGS/rustup-init.sh" || die "https://sh.rustup.rs could not be read: install Rust >= $rust_minimum by hand (https://rustup.rs)"
  quiet rustup sh "$ORTOLAN_LOGS/rustup-init.sh" -y --profile minimal --component clippy --component rustfmt
  PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
fi
rust=$(rustc --version | awk '{print $2}')
version_at_least "$rust" "$rust_minimum" || die "Rust $rust is older than $rust_minimum: run rustup update stable"
if [ -n "$checks" ]; then
  for tool in clippy:cargo-clippy rustfmt:rustfmt; do
    have "${tool#*:}" && "${tool#*:}" --version >/dev/null 2>&1 && continue
    have rustup || die "${tool%%:*} is missing: install it with the package manager that installed Rust"
    quiet "rustup-${tool%%:*}" rustup component add "${tool%%:*}"
  done
  tool=$ORTOLAN_CACHE/tools/cargo-deny-$CARGO_DENY_VERSION
  if [ ! -x "$tool/bin/cargo-deny" ]; then
    step "cargo-deny $CARGO_DENY_VERSION" quiet cargo-deny env CARGO_TARGET_DIR="$ORTOLAN_CACHE/tools/target" CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 nice cargo install --locked --quiet --root "$tool" --version "$CARGO_DENY_VERSION" cargo-deny \
      || die "cargo-deny could not be built"
    rm -rf "$ORTOLAN_CACHE/tools/target"
  fi
fi
