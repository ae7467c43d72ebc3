# The images. cargo builds the programs outside, against the glibc of the base (no compiler image is needed, and none is to be had offline);
# scripts/images.sh lays them out in a folder that is the build context:
#   ortolan-operator  ortolan-server  ortolan-model-store  ortolan-e2e-load  onnxruntime/  models/
# BASE is a root file system with glibc, libstdc++ and the CA certificates and no shell: distroless, or what scripts/images.sh makes of
# Debian's packages where there is no registry.
ARG BASE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BASE} AS operator
COPY ortolan-operator /usr/bin/ortolan-operator
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/bin/ortolan-operator"]

FROM ${BASE} AS server
COPY onnxruntime/ /opt/ortolan/lib/
COPY ortolan-server /usr/bin/ortolan-server
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
