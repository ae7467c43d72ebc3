#!/bin/bash
# The CRDs of the Gateway API, standard channel, from its Go module by version and checksum. Prints the folder, $ORTOLAN_CACHE/gateway-api/VERSION;
# does nothing when it is there. Apply it with: kubectl apply --server-side -f "$(scripts/gateway-api.sh)"
# The admission policy of the channel is left out: it would refuse another version of the CRDs later.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

dir=$ORTOLAN_CACHE/gateway-api/$GATEWAY_API_VERSION
if [ -d "$dir" ]; then echo "$dir"; exit 0; fi
use_go
mkdir -p "${dir%/*}"
tmp=$(mktemp -d "${dir%/*}/fetch-XXXXXX"); trap 'rm -rf "$tmp"' EXIT
cd "$tmp"                                              # in no module of ours
go mod download -json "sigs.k8s.io/gateway-api@v$GATEWAY_API_VERSION" > module.json 2> "$ORTOLAN_LOGS/gateway-api.log" \
  || { cat module.json "$ORTOLAN_LOGS/gateway-api.log" >&2; die "the Gateway API's module could not be downloaded"; }
value() { sed -n "s|^.*\"$1\": \"\(.*\)\",\{0,1\}\$|\1|p" module.json; }
[ "$(value Sum)" = "$GATEWAY_API_SUM" ] \
  || die "the checksum of sigs.k8s.io/gateway-api v$GATEWAY_API_VERSION is $(value Sum), scripts/versions.sh expects $GATEWAY_API_SUM"
mkdir out
for f in "$(value Dir)"/config/crd/standard/*.yaml; do
  case $f in *_vap_*) ;; *) install -m644 "$f" out/;; esac
done
[ -s out/gateway.networking.k8s.io_httproutes.yaml ] || die "the module sigs.k8s.io/gateway-api v$GATEWAY_API_VERSION has no HTTPRoute in config/crd/standard"
mv -T out "$dir" 2>/dev/null || [ -d "$dir" ] || die "$dir could not be written"      # another run was first: its files are the same
echo "$dir"
