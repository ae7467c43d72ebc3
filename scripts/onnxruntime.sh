#!/bin/bash
# ONNX Runtime's libraries, from PyPI's wheels by version and checksum. Prints the folder; does nothing when they are there. Python itself is needed for pip only.
#   scripts/onnxruntime.sh [cpu]       $ORTOLAN_CACHE/onnxruntime/VERSION            the processor; what everything here uses by itself
#   scripts/onnxruntime.sh gpu         $ORTOLAN_CACHE/onnxruntime-gpu/VERSION        with CUDA and TensorRT; their own libraries (NVIDIA's) are not in it
#   scripts/onnxruntime.sh openvino    $ORTOLAN_CACHE/onnxruntime-openvino/VERSION   OpenVINO as a plugin, for the processor: --provider-library
set -euo pipefail
. "$(dirname "$0")/lib.sh"

machine=$(uname -m) shared=libonnxruntime_providers_shared.so
case ${1:-cpu} in
  cpu) package=onnxruntime version=$ONNXRUNTIME_VERSION checksum=ONNXRUNTIME_SHA256_ size="24 MB" needs=(libonnxruntime.so "$shared" LICENSE ThirdPartyNotices.txt);;
  gpu) package=onnxruntime-gpu version=$ONNXRUNTIME_VERSION checksum=ONNXRUNTIME_GPU_SHA256_ size="256 MB"
       needs=(libonnxruntime.so "$shared" libonnxruntime_providers_cuda.so libonnxruntime_providers_tensorrt.so LICENSE ThirdPartyNotices.txt);;
  openvino) package=onnxruntime-ep-openvino version=$ONNXRUNTIME_OPENVINO_VERSION checksum=ONNXRUNTIME_OPENVINO_SHA256_ size="53 MB"
       needs=(libonnxruntime_providers_openvino_plugin.so libopenvino_intel_cpu_plugin.so third-party-programs.txt);;
  *) die "there is no ONNX Runtime '$1': cpu, gpu or openvino";;
esac
dir=$ORTOLAN_CACHE/$package/$version; [ "$package" != onnxruntime-ep-openvino ] || dir=$ORTOLAN_CACHE/onnxruntime-openvino/$version
is_there() { local f; for f in "${needs[@]}"; do [ -s "$dir/$f" ] || return 1; done; }
if is_there; then echo "$dir"; exit 0; fi

digest=$checksum$machine; digest=${!digest:-}
[ -n "$digest" ] || die "there is no checksum of $package $version for $machine in scripts/versions.sh, only for: $(compgen -v "$checksum" | sed "s/^$checksum//" | paste -sd' ')"
if ! { have python3 && python3 -m pip --version >/dev/null 2>&1; }; then die "python3 with pip is needed to download ONNX Runtime: run scripts/install.sh"; fi
log "$package $version from PyPI ($size, once)"
tmp=$(mktemp -d "$ORTOLAN_CACHE/onnxruntime-XXXXXX"); trap 'rm -rf "$tmp"' EXIT
printf '%s==%s --hash=sha256:%s\n' "$package" "$version" "$digest" > "$tmp/requirements.txt"
# Without pip's cache, which would keep a second copy.
quiet onnxruntime python3 -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps --require-hashes --only-binary :all: --implementation cp \
  --python-version "$ONNXRUNTIME_PYTHON" --platform "manylinux_2_28_$machine" --platform "manylinux_2_27_$machine" -d "$tmp" -r "$tmp/requirements.txt" \
  || die "$package $version could not be downloaded from PyPI"
python3 - "$tmp"/*.whl "$tmp/out" "$version" "${needs[@]}" <<'P'
import os, shutil, sys, zipfile
wheel, out, version, *needs = sys.argv[1:]
os.mkdir(out)
with zipfile.ZipFile(wheel) as z:
    if "libonnxruntime.so" in needs:
        names = {name: f"onnxruntime/capi/{name}" if ".so" in name else f"onnxruntime/{name}" for name in needs}
        names["libonnxruntime.so"] += f".{version}"
    else:   # a plugin finds what it needs beside itself; what is for Intel's GPUs and NPUs is left out, and copies under other names
        skip = ("_gpu_plugin.so", "_npu_plugin.so", "_plugin.so.1", f"_plugin.so.{version}")
        wanted = [n for n in z.namelist() if (".so" in n and not n.endswith(skip)) or n.endswith("third-party-programs.txt")]
        names = {os.path.basename(n): n for n in wanted}
    for to, name in names.items():
        with z.open(name) as source, open(os.path.join(out, to), "wb") as f:
            shutil.copyfileobj(source, f)
P
chmod 755 "$tmp"/out/*.so*
mkdir -p "$dir"
for f in "$tmp"/out/*; do mv -f "$f" "$dir/"; done         # one by one and by rename: a reader sees the old file or the new one
is_there || die "the wheel of $package $version has not all of: ${needs[*]}"
echo "$dir"
