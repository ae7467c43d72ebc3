# shellcheck shell=bash
# What build, up, load and down share. Two ways: where a Docker engine runs, it is used with kind's stock node image from its registry; else
# (or with ORTOLAN_KIND_OFFLINE=1) Debian's engine runs in namespaces of its own, as the node of e2e/cluster does, with a node image that is
# built here from Debian's packages, kind's own files and the programs of e2e/cluster.
# shellcheck source=e2e/cluster/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../cluster/lib.sh"

KIND_ROOT=$ORTOLAN_CACHE/kind
KIND_CLUSTER=ortolan-e2e
NODE_IMAGE=ortolan/kind-node:v$KUBERNETES_VERSION
KIND_KEY=$({ echo "$CLUSTER_KEY $KIND_VERSION"; cat "$REPO"/e2e/kind/{build,node-image,go/kind/go.sum} "$REPO"/e2e/kind/files/*; } | sha256sum | cut -c1-12)
KIND_BIN=$KIND_ROOT/bin-$KIND_KEY
STATE=$KIND_ROOT/state                                     # the offline engine's images stay there, also after down
# As lib.sh of e2e/cluster names them:
NAME=kind R=$KIND_ROOT/run LINK=ortolan-kind HOST_IP=10.255.16.1 NODE_IP=10.255.16.2 CGROUP=ortolan-kind

# Whoever uses the offline cluster has its engine in DOCKER_HOST: that is no engine of theirs.
if [ "${DOCKER_HOST:-}" = "unix://$R/docker.sock" ]; then unset DOCKER_HOST; fi
ORTOLAN_KIND_MODE=stock
if [ -n "${ORTOLAN_KIND_OFFLINE:-}" ] || [ -n "$(init_pid)" ] || ! { have docker && docker info >/dev/null 2>&1; }; then ORTOLAN_KIND_MODE=offline; fi
ENGINE=$KIND_ROOT/engine
if [ "$ORTOLAN_KIND_MODE" = offline ]; then
  need_root "A Docker engine of our own"
  export DOCKER_HOST=unix://$R/docker.sock
  PATH=$KIND_BIN:$ENGINE/usr/bin:$PATH
else
  PATH=$PATH:$KIND_BIN
fi

# start_engine: the offline Docker engine, in the namespaces of the cluster that $R names.
start_engine() {
  [ "$ORTOLAN_KIND_MODE" = offline ] || return 0
  docker info >/dev/null 2>&1 && return 0
  end_processes; end_traces; rm -rf --one-file-system "$R"
  mkdir -p "$R"/{logs,pids,cmd} "$STATE"
  export ORTOLAN_CLUSTER_STATE_OF=$R
  [ -d /lib/modules ] || { mkdir /lib/modules; touch "$KIND_ROOT/made-lib-modules"; }     # kind mounts it into its nodes
  make_init "$LINK" "$HOST_IP" "$NODE_IP"
  # The rules for what may be asked of a process are in runc-wrapper.
  printf '{"runtimes": {"ortolan": {"path": "%s"}}, "default-runtime": "ortolan"}\n' "$KIND_BIN/runc-wrapper" > "$R/daemon.json"
  component dockerd nsenter "--net=$R/ns/net" env "PATH=$ENGINE/usr/sbin:$ENGINE/usr/bin:$PATH" dockerd --config-file "$R/daemon.json" -H "$DOCKER_HOST" \
    --data-root "$STATE" --exec-root /run/docker/exec --pidfile /run/docker/dockerd.pid --storage-driver overlay2 --cgroup-parent "/$CGROUP" --bip 172.31.255.1/24
  start dockerd
  wait_for 60 "the Docker engine" dockerd docker info
}

stop_engine() {
  [ "$ORTOLAN_KIND_MODE" = offline ] || return 0
  end_processes; end_traces
  if [ -e "$KIND_ROOT/made-lib-modules" ]; then rmdir /lib/modules 2>/dev/null || true; rm -f "$KIND_ROOT/made-lib-modules"; fi
}
