# The images. cargo builds the programs outside, against the glibc of the base (no compiler image is needed, and none is to be had offline);
# scripts/images.sh lays them out in a folder that is the build context:
#   ortolan-operator  ortolan-router  ortolan-server  ortolan-model-store  ortolan-e2e-load  onnxruntime/  onnxruntime-gpu/  models/
# BASE is a root file system with glibc, libstdc++ and the CA certificates and no shell: distroless, or what scripts/images.sh makes of
# Debian's packages where there is no registry.
ARG BASE=gcr.io/distroless/cc-debian12:nonroot
# CUDA_BASE has the libraries that ONNX Runtime's GPU library was built for, CUDA 13 and cuDNN 9, and a glibc at least as new as the build
# machine's. The driver (580 or newer) comes from the node.
ARG CUDA_BASE=docker.io/nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04

FROM ${BASE} AS operator
COPY ortolan-operator /usr/bin/ortolan-operator
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/bin/ortolan-operator"]

FROM ${BASE} AS router
COPY ortolan-router /usr/bin/ortolan-router
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/bin/ortolan-router"]

FROM ${BASE} AS server
COPY onnxruntime/ /opt/ortolan/lib/
COPY ortolan-server /usr/bin/ortolan-server
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/bin/ortolan-server"]

# The same server with ONNX Runtime's GPU library: --provider CUDA, and with NVIDIA's TensorRT in the base --provider TensorRT.
FROM ${CUDA_BASE} AS server-cuda
COPY onnxruntime-gpu/ /opt/ortolan/lib/
COPY ortolan-server /usr/bin/ortolan-server
# What the container runtime needs to know to hand over the GPU and its driver.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/bin/ortolan-server"]

# A server with a model inside, for file:///models/...: how to make an image of your own; the end-to-end tests use this one.
FROM server AS bundle
COPY models/efficientnet-lite0.tar.gz /models/

# Serves the prepared models over HTTP: gives the examples and the tests a URI that works without the internet.
FROM ${BASE} AS model-store
COPY ortolan-model-store /usr/bin/ortolan-model-store
COPY models/ /models/
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/bin/ortolan-model-store", "/models"]

# Sends load to Services from inside a cluster; the end-to-end tests drive it.
FROM ${BASE} AS load
COPY ortolan-e2e-load /usr/bin/ortolan-e2e-load
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/bin/ortolan-e2e-load"]
