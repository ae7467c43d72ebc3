# shellcheck shell=bash
# The configuration of the node's programs, written into the state folder. Sourced by up.

# restrict_oom_score_adj: without CAP_SYS_RESOURCE runc may not lower oom_score_adj, and every sandbox dies with "can't get final child's PID from pipe".
cat > containerd.toml <<T
version = 2
root = "$R/containerd"
state = "/run/containerd/state"
[grpc]
  address = "$R/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/ortolan/pause:1"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$CNI"
    conf_dir = "$R/cni"
T
# ptp: every pod hangs on a wire of its own and every packet is routed, so a Service works also where the kernel has no br_netfilter.
mkdir -p cni
cat > cni/10-pods.conflist <<C
{"cniVersion":"0.4.0","name":"pods","plugins":[
 {"type":"ptp","ipMasq":false,"ipam":{"type":"host-local","ranges":[[{"subnet":"$POD_RANGE"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
C
# failCgroupV1: a machine that mounts cgroup v1 is refused by Kubernetes 1.35 unless told. cgroupRoot: two kubelets on one machine would
# otherwise remove each other's pods.
cat > kubelet.yaml <<K
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP
containerRuntimeEndpoint: unix://$R/containerd.sock
clusterDNS: [$DNS_IP]
clusterDomain: cluster.local
resolvConf: ""
tlsCertFile: $R/pki/kubelet.crt
tlsPrivateKeyFile: $R/pki/kubelet.key
authentication: {anonymous: {enabled: false}, x509: {clientCAFile: $R/pki/ca.crt}, webhook: {enabled: true}}
authorization: {mode: Webhook}
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
kubeAPIQPS: 200
kubeAPIBurst: 400
maxPods: 250
K
cat > Corefile <<C
.:53 {
  bind $DNS_IP
  errors
  cache 5
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $R/coredns.kubeconfig
  }
  template ANY ANY {
    rcode NXDOMAIN
  }
}
C
# The kubelet's root cgroup has to exist in every controller.
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  for c in $(cat /sys/fs/cgroup/cgroup.controllers); do echo "+$c" > /sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || true; done
  mkdir -p "/sys/fs/cgroup/$CGROUP"
else
  for c in /sys/fs/cgroup/*/; do mkdir -p "$c$CGROUP" 2>/dev/null || true; done
  # An empty cpuset takes no process: it starts with what its parent has.
  for f in cpus mems; do cat "/sys/fs/cgroup/cpuset/cpuset.$f" > "/sys/fs/cgroup/cpuset/$CGROUP/cpuset.$f" 2>/dev/null || true; done
fi
