# shellcheck shell=bash
# What build and install share: versions, names, where the built things are.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"

GATEWAY_SOURCES=$REPO/e2e/gateway
# The number is for the recipe (flags, layout of the image): raise it when build changes those.
GATEWAY_KEY=$({ echo "recipe 1 $ENVOY_GATEWAY_VERSION $ENVOY_VERSION"; cat "$GATEWAY_SOURCES"/go/envoy-gateway/{go.mod,go.sum}; } | sha256sum | cut -c1-12)
# Holds envoy-gateway.tar, the one image, and chart/, Envoy Gateway's own.
GATEWAY_BUILT=$ORTOLAN_CACHE/gateway/$ENVOY_GATEWAY_VERSION-$GATEWAY_KEY
GATEWAY_IMAGE=localhost/ortolan/envoy-gateway:$ENVOY_GATEWAY_VERSION-$ENVOY_VERSION
