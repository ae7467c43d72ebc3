# shellcheck shell=bash
# The facts that build, up, down, load, node and selftest share: names, addresses, ports, where the state is, how to find what runs.
# A cluster lives in namespaces of its own (processes, mounts, network): one process, the init, holds all of it, and when that one is
# killed the kernel takes everything else away. Nothing on the machine outside changes but one veth with its routes, the cgroups
# /ortolan-NAME, and the state folder.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"

CLUSTER_ROOT=$ORTOLAN_CACHE/cluster
# What decides the programs: their versions and sources. The number is for the recipe (flags, layout): raise it when e2e/cluster/build changes those.
CLUSTER_KEY=$({ echo "recipe 1 $KUBERNETES_VERSION"; cat "$REPO"/e2e/cluster/go/*/{go.mod,go.sum,main.go} 2>/dev/null; } | sha256sum | cut -c1-12)
BIN=${ORTOLAN_CLUSTER_BIN:-$CLUSTER_ROOT/bin-$CLUSTER_KEY}

# name_cluster NAME [STATE-DIR] [INDEX]: the index gives a cluster its ports and addresses, so that clusters of two names never meet.
name_cluster() {
  NAME=$1
  [[ $NAME =~ ^[a-z]([a-z0-9-]{0,9}[a-z0-9])?$ ]] || die "cluster name '$NAME': use 1 to 11 of a-z, 0-9 and -, beginning with a letter"
  R=${2:-$CLUSTER_ROOT/run/$NAME}
  case $NAME in test) INDEX=1;; demo) INDEX=2;; api) INDEX=3;; bench) INDEX=4;; selftest) INDEX=5;; dev) INDEX=6;; gateway) INDEX=8;; *) INDEX=;; esac
  INDEX=${3:-$INDEX}
  if [ -z "$INDEX" ] && [ -f "$R/index" ]; then INDEX=$(cat "$R/index"); fi
  [ -n "$INDEX" ] || die "cluster name '$NAME' has no ports of its own: use test, demo, api, bench, selftest, dev or gateway, or give --index 9..15"
  [[ $INDEX =~ ^([1-9]|1[0-5])$ ]] || die "--index $INDEX: write a number from 1 to 15"
  [ ${#R} -le 80 ] || die "the state folder $R is longer than the 80 characters that Unix sockets in it allow: set ORTOLAN_CACHE or --state to a shorter path"
  API_PORT=$((16400 + 10 * INDEX)) ETCD_PORT=$((16401 + 10 * INDEX)) ETCD_PEER_PORT=$((16402 + 10 * INDEX))
  KCM_PORT=$((16403 + 10 * INDEX)) SCHEDULER_PORT=$((16404 + 10 * INDEX))
  LINK=ortolan-$INDEX                                        # the veth's end outside
  HOST_IP=10.255.$INDEX.1 NODE_IP=10.255.$INDEX.2
  SERVICE_RANGE=10.96.$((INDEX * 16)).0/20 KUBERNETES_IP=10.96.$((INDEX * 16)).1 DNS_IP=10.96.$((INDEX * 16)).10
  POD_RANGE=10.244.$((INDEX * 16)).0/20
  NODE=ortolan CGROUP=ortolan-$NAME
}

# inits: the processes of this state folder's init, found by their exact arguments, so that no stale or missing pid file can mislead.
# With "all" also the unshare that waits for it.
inits() {
  local p i argv
  for p in /proc/[0-9]*; do
    mapfile -d '' -t argv 2>/dev/null < "$p/cmdline" || continue
    case ${argv[0]:-} in *bash) ;; unshare) [ "${1:-}" = all ] || continue;; *) continue;; esac
    for ((i = 1; i + 1 < ${#argv[@]}; i++)); do
      if [[ ${argv[i]} == */e2e/cluster/init && ${argv[i + 1]} == "$R" ]]; then echo "${p#/proc/}"; fi
    done
  done | sort -n
}
init_pid() { inits | head -n1; }

# in_node COMMAND...: runs a command where the cluster's processes and mounts are visible.
in_node() {
  local p; p=$(init_pid)
  [ -n "$p" ] || die "no cluster '$NAME' is running (its state folder would be $R)"
  nsenter --target "$p" --pid --mount -- "$@"
}

# running COMPONENT
running() {
  local p; p=$(cat "$R/pids/$1" 2>/dev/null) || return 1
  in_node test -d "/proc/$p"
}

# start COMPONENT: runs $R/cmd/COMPONENT in the cluster's namespaces, detached; its output goes to $R/logs/COMPONENT.log.
start() {
  [ -x "$R/cmd/$1" ] || die "the cluster '$NAME' has no component '$1'; it has: $(cd "$R/cmd" && echo *)"
  running "$1" && return 0
  in_node bash -c 'setsid "$0/cmd/$1" >> "$0/logs/$1.log" 2>&1 < /dev/null & echo $! > "$0/pids/$1"' "$R" "$1" 8>&-   # not the lock of up
}

# stop COMPONENT [SIGNAL]: returns when it is gone.
stop() {
  local p; p=$(cat "$R/pids/$1" 2>/dev/null) || die "the cluster '$NAME' has no component '$1' running"
  in_node bash -c 'kill -s "$1" "$0" 2>/dev/null; for _ in {1..300}; do [ -d "/proc/$0" ] || exit 0; sleep 0.1; done; kill -9 "$0"; sleep 0.2' "$p" "${2:-TERM}"
  rm -f "$R/pids/$1"
}

# What up was running when it was killed, and the programs of a cluster that was started without root, carry its state folder in the environment.
ours() {
  local p
  inits all
  for p in $(grep -lzxF "ORTOLAN_CLUSTER_STATE_OF=$R" /proc/[0-9]*/environ 2>/dev/null); do
    p=${p#/proc/}; p=${p%/environ}
    if [ "$p" != $$ ] && ! grep -qs '^State:.Z' "/proc/$p/status"; then echo "$p"; fi
  done
}

# end_processes: with the init the kernel ends every process of its namespaces, and their mounts and network go with the last of them.
end_processes() {
  local pids
  for _ in {1..200}; do
    pids=$(inits); [ -n "$pids" ] || pids=$(ours); [ -n "$pids" ] || return 0      # the init first: the unshare that waits for it collects it
    # shellcheck disable=SC2086
    kill -KILL $pids 2>/dev/null || true
    sleep 0.05
  done
  die "processes of the cluster '$NAME' do not end: $(ours | tr '\n' ' ')"
}

# end_traces: what is not in a namespace: the wire's end, and the cgroups.
end_traces() {
  local root
  [ "$(id -u)" = 0 ] || return 0
  for _ in {1..40}; do [ -e "/sys/class/net/$LINK" ] || break; sleep 0.05; done     # the kernel takes the network away a moment later
  if [ -e "/sys/class/net/$LINK" ]; then ip link del "$LINK"; fi
  for root in /sys/fs/cgroup /sys/fs/cgroup/*; do
    [ -d "$root/$CGROUP" ] || continue
    for _ in {1..40}; do find "$root/$CGROUP" -depth -type d -exec rmdir {} + 2>/dev/null || true; [ -d "$root/$CGROUP" ] || break; sleep 0.05; done
    [ ! -d "$root/$CGROUP" ] || warn "the cgroup $root/$CGROUP is still in use"
  done
}

# make_init PARAMETER...: starts the init of $R with these parameters in namespaces of its own; it is ready when this returns.
make_init() {
  local init=$REPO/e2e/cluster/init own=()
  if [ "$(id -u)" = 0 ]; then own=(unshare --fork --pid --mount --mount-proc --propagation private); fi
  rm -f "$R/init.ready"
  setsid "${own[@]}" "$init" "$R" "$@" > "$R/logs/init.log" 2>&1 < /dev/null 8>&- &
  for _ in {1..100}; do [ -e "$R/init.ready" ] && break; sleep 0.05; done
  [ -e "$R/init.ready" ] || die "the cluster's namespaces could not be made: $(tail -n 3 "$R/logs/init.log")"
  [ -n "$(init_pid)" ] || die "the cluster's first process has ended: see $R/logs/init.log"
}

# component NAME COMMAND...: writes $R/cmd/NAME, one line, so that a program can be stopped and started by itself.
component() {
  local n=$1; shift
  { printf '#!/bin/bash\nexport ORTOLAN_CLUSTER_STATE_OF=%q\ncd %q\nunset KUBECONFIG HTTP_PROXY HTTPS_PROXY http_proxy https_proxy ALL_PROXY all_proxy\nexec' "$R" "$R"
    printf ' %q' "$@"; echo; } > "$R/cmd/$n"
  chmod +x "$R/cmd/$n"
}

# wait_for SECONDS WHAT LOG COMMAND...
wait_for() {
  local end=$((SECONDS + $1)) what=$2 file=$3; shift 3
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || { tail -n 15 "$R/logs/$file.log" | sed 's/^/  | /' >&2; die "$what did not come up in time; the whole log: $R/logs/$file.log"; }
    sleep 0.1
  done
}
