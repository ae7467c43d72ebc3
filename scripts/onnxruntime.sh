#!/bin/bash
# ONNX Runtime's library, from its PyPI wheel by version and checksum, into $ORTOLAN_CACHE/onnxruntime/VERSION. Prints that folder.
# Does nothing when it is there. Python itself is needed for pip only.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

dir=$ORTOLAN_CACHE/onnxruntime/$ONNXRUNTIME_VERSION
if [ -s "$dir/libonnxruntime.so" ] && [ -s "$dir/libonnxruntime_providers_shared.so" ] && [ -s "$dir/LICENSE" ]; then echo "$dir"; exit 0; fi

machine=$(uname -m); want=ONNXRUNTIME_SHA256_$machine
[ -n "${!want:-}" ] || die "there is no checksum of ONNX Runtime $ONNXRUNTIME_VERSION for $machine in scripts/versions.sh: x86_64 and aarch64 on Linux are supported"
if ! { have python3 && python3 -m pip --version >/dev/null 2>&1; }; then die "python3 with pip is needed to download ONNX Runtime: run scripts/install.sh"; fi
log "ONNX Runtime $ONNXRUNTIME_VERSION from PyPI (24 MB, once)"
tmp=$(mktemp -d "$ORTOLAN_CACHE/onnxruntime-XXXXXX"); trap 'rm -rf "$tmp"' EXIT
printf 'onnxruntime==%s --hash=sha256:%s\n' "$ONNXRUNTIME_VERSION" "${!want}" > "$tmp/requirements.txt"
quiet onnxruntime python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: --implementation cp \
  --python-version "$ONNXRUNTIME_PYTHON" --platform "manylinux_2_28_$machine" --platform "manylinux_2_27_$machine" -d "$tmp" -r "$tmp/requirements.txt" \
  || die "ONNX Runtime $ONNXRUNTIME_VERSION could not be downloaded from PyPI"
python3 - "$tmp"/*.whl "$tmp/out" "$ONNXRUNTIME_VERSION" <<'P'
import os, sys, zipfile
wheel, out, version = sys.argv[1:]
os.mkdir(out)
names = {f"onnxruntime/capi/libonnxruntime.so.{version}": "libonnxruntime.so",
         "onnxruntime/capi/libonnxruntime_providers_shared.so": "libonnxruntime_providers_shared.so",
         "onnxruntime/LICENSE": "LICENSE", "onnxruntime/ThirdPartyNotices.txt": "ThirdPartyNotices.txt"}
with zipfile.ZipFile(wheel) as z:
    for name, to in names.items():
        with open(os.path.join(out, to), "wb") as f:
            f.write(z.read(name))
P
chmod 755 "$tmp"/out/*.so
mkdir -p "$dir"
for f in "$tmp"/out/*; do mv -f "$f" "$dir/"; done         # one by one and by rename: a reader sees the old file or the new one
echo "$dir"
