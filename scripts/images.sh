#!/bin/bash
# Builds the images operator, router, server and model-store (when they are named also load and bundle, for the end-to-end tests, and server-cuda) and writes them as archives into $ORTOLAN_CACHE/images. Does nothing for an image
# whose parts have not changed. Uses a running Docker engine, else buildah (as root); no registry is needed.
#   scripts/images.sh [IMAGE...]
#   ORTOLAN_IMAGE_PREFIX=localhost/ortolan  ORTOLAN_IMAGE_TAG=dev     what the images are called
#   ORTOLAN_IMAGE_BASE=gcr.io/distroless/cc-debian12:nonroot          a base from a registry, in place of Debian's packages
#   ORTOLAN_CUDA_BASE=…       the base of server-cuda, with CUDA and cuDNN in it, in place of the Dockerfile's; "base": the others' base, which
#                             has neither, so that the image builds and says what is missing
set -euo pipefail
. "$(dirname "$0")/lib.sh"

IMAGES=("$@"); [ "$#" -gt 0 ] || IMAGES=(operator router server model-store)
PREFIX=${ORTOLAN_IMAGE_PREFIX:-localhost/ortolan} TAG=${ORTOLAN_IMAGE_TAG:-dev}
OUT=$ORTOLAN_CACHE/images
declare -A PACKAGE=([operator]=ortolan-operator [router]=ortolan-router [server]=ortolan-server [model-store]=ortolan-model-store [load]=ortolan-e2e-load [bundle]=ortolan-server [server-cuda]=ortolan-server)
declare -A BUDGET_MB=([operator]=45 [router]=45 [server]=90 [model-store]=200 [load]=40 [bundle]=110 [server-cuda]=4500)   # uncompressed; what a node has to pull decides how fast a pod starts. Of server-cuda 335 MB are ours, the rest is NVIDIA's base
for i in "${IMAGES[@]}"; do [ -n "${PACKAGE[$i]:-}" ] || die "no image '$i'; there are: operator, router, server, model-store, load, bundle, server-cuda"; done
mkdir -p "$OUT"
exec 7> "$OUT/lock"; flock 7

engine() { have docker && docker info >/dev/null 2>&1; }
buildah() { command buildah --root "$OUT/store" --runroot "$OUT/store-run" --storage-driver vfs "$@"; }

binaries() {
  local i packages=()
  for i in "${IMAGES[@]}"; do packages+=(-p "${PACKAGE[$i]}"); done
  (cd "$REPO" && nice cargo build --release --locked "${packages[@]}")
}

# The base's glibc has to know every symbol version that a program asks for.
runs_on_base() { # runs_on_base PROGRAM GLIBC
  local wants
  have objdump || die "objdump is missing: apt-get install binutils"
  wants=$(objdump -T "$1" | grep -oE 'GLIBC_[0-9.]+' | sed 's/GLIBC_//' | sort -uV | tail -n1)
  version_at_least "$2" "${wants:-0}" \
    || die "$(basename "$1") asks for glibc $wants, the base image has $2: build on a machine with the base's distribution, or set ORTOLAN_IMAGE_BASE to a newer base"
}

# base_rootfs SUITE FILE: Debian's (or Ubuntu's) own packages, extracted and cut down to libraries, certificates and their licences.
base_rootfs() {
  local dir=$2.dir
  have mmdebstrap || die "mmdebstrap is missing: run scripts/install.sh"
  rm -rf "$dir"
  quiet base-image mmdebstrap --quiet --variant=extract --include="$BASE_PACKAGES" "$1" "$dir" || return 1
  slim_rootfs "$dir" || return 1
  tar --sort=name --mtime=@0 --numeric-owner -C "$dir" -cf "$2.new" . && mv "$2.new" "$2" && rm -rf "$dir"
}
# slim_rootfs DIR: a shell of its own with errexit, which a step around it would switch off.
slim_rootfs() {
  bash -euo pipefail -s "$1" <<'S'
   cd "$1"
   mkdir -p etc/ssl/certs home/nonroot
   find usr/share/ca-certificates -name '*.crt' | LC_ALL=C sort | xargs cat > etc/ssl/certs/ca-certificates.crt
   find usr/share -mindepth 1 -maxdepth 1 ! -name doc -exec rm -rf {} +
   find usr/share/doc -type f ! -name copyright -delete
   find . -name gconv -prune -exec rm -rf {} +
   rm -rf dev/* var etc/apt etc/dpkg etc/debconf.conf etc/ca-certificates etc/fstab etc/hostname etc/resolv.conf usr/bin usr/sbin usr/lib/*/libcrypto* usr/lib/*/libssl* usr/lib/*/engines-3 usr/lib/*/ossl-modules
   find . -type d -empty ! -path ./tmp ! -path ./dev -delete 2>/dev/null || true
   mkdir -p tmp home/nonroot dev proc sys; chmod 1777 tmp
   echo 'hosts: files dns' > etc/nsswitch.conf
   printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' > etc/passwd
   printf 'root:x:0:\nnonroot:x:65532:\n' > etc/group
   chown 65532:65532 home/nonroot
S
}

# Sets BASE (an image), BASE_KEY and, where it is known, BASE_GLIBC.
base() {
  local suite key file
  if [ -n "${ORTOLAN_IMAGE_BASE:-}" ]; then BASE=$ORTOLAN_IMAGE_BASE BASE_KEY=$ORTOLAN_IMAGE_BASE BASE_GLIBC=; case $BASE in *debian12*) BASE_GLIBC=2.36;; esac; return; fi
  suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")                  # the programs are built here, so the base has this machine's glibc
  [ -n "$suite" ] || die "only Debian and Ubuntu give a base image from packages; set ORTOLAN_IMAGE_BASE to an image with a glibc at least as new as this machine's"
  key=$(declare -f base_rootfs slim_rootfs | { cat; echo "$suite $BASE_PACKAGES $(uname -m)"; } | sha256sum | cut -c1-12)
  file=$OUT/base-$suite-$key.tar BASE=localhost/ortolan/base:$key BASE_KEY=$key
  [ -s "$file" ] || step "base image from $suite's packages" base_rootfs "$suite" "$file" || die "the base image could not be made"
  BASE_GLIBC=$(getconf GNU_LIBC_VERSION | awk '{print $2}')
  if engine; then docker image inspect "$BASE" >/dev/null 2>&1 || quiet base-import docker import "$file" "$BASE"
  elif ! buildah inspect "$BASE" >/dev/null 2>&1; then
    printf 'FROM scratch\nADD %s /\n' "$(basename "$file")" > "$OUT/Dockerfile.base"
    quiet base-build buildah bud --isolation chroot -q -f "$OUT/Dockerfile.base" -t "$BASE" "$OUT"
  fi
}

# stage: the build context, hard links where possible. $STAGE/NAME.parts lists what goes into the image NAME.
stage() {
  local i gpu
  STAGE=$OUT/context; rm -rf "$STAGE"; mkdir -p "$STAGE"/{onnxruntime,onnxruntime-gpu,models}
  : > "$STAGE/models/efficientnet-lite0.tar.gz"
  for i in operator router server model-store load; do : > "$STAGE/${PACKAGE[$i]}"; done
  for i in "${IMAGES[@]}"; do
    install -m755 "$CARGO_TARGET_DIR/release/${PACKAGE[$i]}" "$STAGE/"
    [ -z "$BASE_GLIBC" ] || runs_on_base "$STAGE/${PACKAGE[$i]}" "$BASE_GLIBC"
    case $i in
      server|bundle) "$REPO/scripts/onnxruntime.sh" >/dev/null
        cp -L "$ORTOLAN_CACHE/onnxruntime/$ONNXRUNTIME_VERSION"/{*.so,LICENSE,ThirdPartyNotices.txt} "$STAGE/onnxruntime/"; chmod 755 "$STAGE"/onnxruntime/*;;&
      server-cuda) gpu=$("$REPO/scripts/onnxruntime.sh" gpu)
        cp -lL "$gpu"/* "$STAGE/onnxruntime-gpu/" 2>/dev/null || cp -fL "$gpu"/* "$STAGE/onnxruntime-gpu/";;&
      model-store|bundle) "$REPO/scripts/models.sh" >/dev/null
        cp -rL "$ORTOLAN_CACHE/models/." "$STAGE/models/"; chmod -R a+rX "$STAGE/models";;
    esac
  done
  find "$STAGE" -exec touch -h -d @0 {} +
}
parts() { case $1 in operator) echo ortolan-operator;; router) echo ortolan-router;; server) echo ortolan-server onnxruntime;; model-store) echo ortolan-model-store models;; bundle) echo ortolan-server onnxruntime models/efficientnet-lite0.tar.gz;; load) echo ortolan-e2e-load;; server-cuda) echo ortolan-server onnxruntime-gpu;; esac; }
content_key() { # content_key IMAGE
  { echo "$PREFIX $TAG $BASE_KEY$([ "$1" != server-cuda ] || echo " ${CUDA_ARG[*]-}")"; cat "$REPO/Dockerfile"; cd "$STAGE"; # shellcheck disable=SC2046
    find $(parts "$1") -type f | LC_ALL=C sort | xargs sha256sum; } | sha256sum | cut -c1-16
}

build_image() { # build_image IMAGE
  local ref=$PREFIX/$1:$TAG
  rm -f "$OUT/$1.tar.new"
  if engine; then
    quiet "image-$1" docker build --build-arg "BASE=$BASE" ${CUDA_ARG[@]+"${CUDA_ARG[@]}"} --target "$1" -t "$ref" -f "$REPO/Dockerfile" "$STAGE" && quiet "image-$1-save" docker save -o "$OUT/$1.tar.new" "$ref"
  else
    have buildah || die "neither a Docker engine nor buildah is at hand: run scripts/install.sh"
    quiet "image-$1" buildah bud --isolation chroot --build-arg "BASE=$BASE" ${CUDA_ARG[@]+"${CUDA_ARG[@]}"} --target "$1" -t "$ref" -f "$REPO/Dockerfile" "$STAGE" &&
      quiet "image-$1-save" buildah push "$ref" "docker-archive:$OUT/$1.tar.new:$ref"
  fi || die "the image $1 could not be built"
  [ -s "$OUT/$1.tar.new" ] || die "the builder wrote no archive of the image $1"
  mv "$OUT/$1.tar.new" "$OUT/$1.tar"
}

# The size on a node: the sum of the layers as they lie on disk.
size_bytes() { tar -tvf "$OUT/$1.tar" | awk '$NF ~ /layer\.tar$|\.tar$|blobs\/sha256/ {s += $3} END {print s + 0}'; }

cargo_here
[ "$(id -u)" = 0 ] || engine || die "building images needs a Docker engine, or root for buildah"
step "release binaries" binaries
base
CUDA_ARG=()
case ${ORTOLAN_CUDA_BASE:-} in "") ;; base) CUDA_ARG=(--build-arg "CUDA_BASE=$BASE");; *) CUDA_ARG=(--build-arg "CUDA_BASE=$ORTOLAN_CUDA_BASE");; esac
stage
over=
for i in "${IMAGES[@]}"; do
  key=$(content_key "$i")
  if [ "$(cat "$OUT/$i.key" 2>/dev/null)" != "$key" ] || [ ! -s "$OUT/$i.tar" ]; then
    rm -f "$OUT/$i.key"; step "image $i" build_image "$i"; echo "$key" > "$OUT/$i.key"
  fi
  size=$(size_bytes "$i")
  log "$(printf '    %-12s %6.1f MB of %d MB  %s' "$i" "$(awk -v s="$size" 'BEGIN {print s / 1e6}')" "${BUDGET_MB[$i]}" "$OUT/$i.tar")"
  [ "$size" -le $((BUDGET_MB[$i] * 1000000)) ] || over+=" $i"
done
rm -rf "$STAGE"
[ -z "$over" ] || die "over the size budget:$over"
