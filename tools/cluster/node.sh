#!/bin/bash
# The first process of one node's namespaces, started by cluster.sh. Node 1 also runs the control plane.
set -euo pipefail
# shellcheck source=wait.sh
. "$(dirname "$0")/wait.sh"
i=$1
API=198.18.255.2 IP=198.18.255.$((i + 1)) NODE=node$i STATE=$CLUSTER/state$i
export PATH=$BIN:/usr/sbin:/usr/bin:/sbin:/bin
# How long a part may take to be there, s.
LINK_MAX=10
API_MAX=120
CONTAINERD_MAX=60
mkdir -p "$STATE"

mount --make-rshared /
for m in /run/containerd /run/netns /var/lib/cni /var/log/containers; do mount -t tmpfs -o mode=755 brisq $m; done
for m in /var/lib/kubelet /var/lib/containerd /var/log/pods; do
  mkdir -p "$STATE$m"
  mount --bind "$STATE$m" $m
done
# Where the host-path provisioner makes volumes. All nodes have the same ones, as of a store behind a network: its volumes
# name no node, so a pod can come back on another one.
mkdir -p "$STATE"/{cni,plugins} "$CLUSTER/volumes" /tmp/hostpath_pv
mount --bind "$CLUSTER/volumes" /tmp/hostpath_pv
# A real provisioner gives a volume to the pod's group; kubelets leave a host path to root.
while sleep 0.2; do chmod -f 1777 "$CLUSTER"/volumes/* || true; done &
for c in /sys/fs/cgroup/{cpu,cpuacct,memory}; do echo $$ > "$c/brisq/$NODE/tasks"; done

ip link set lo up
link_is_up() { ip link set eth0 up 2>/dev/null; }
wait_until $LINK_MAX "eth0" link_is_up
ip addr add "$IP/24" dev eth0
ip route add default via 198.18.255.1
for j in 1 2 3; do
  if [ "$j" != "$i" ]; then ip route add "198.18.$j.0/24" via "198.18.255.$((j + 1))"; fi
done
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.route_localnet=1 || true
sysctl -qw net.bridge.bridge-nf-call-iptables=1 || true

run() {
  local name=$1
  shift
  "$@" > "$CLUSTER/log/$name-$i.log" 2>&1 &
  echo $! > "$STATE/$name.pid"
}

kubeconfig() {
  cat <<K
apiVersion: v1
kind: Config
clusters: [{name: brisq, cluster: {server: "https://$API:6443", insecure-skip-tls-verify: true}}]
users: [{name: $1, user: {token: $1-token}}]
contexts: [{name: brisq, context: {cluster: brisq, user: $1}}]
current-context: brisq
K
}

api_is_ready() { curl -sk --max-time 2 https://$API:6443/readyz | grep -q ok; }

control_plane() {
  {
    echo admin-token,admin,1,system:masters
    echo kcm-token,kcm,2,system:masters
    echo scheduler-token,system:kube-scheduler,3
    echo proxy-token,system:kube-proxy,4
    echo dns-token,dns,5,system:masters
    for j in 1 2 3; do echo "node$j-token,system:node:node$j,1$j,system:nodes"; done
  } > "$STATE/tokens.csv"
  run etcd etcd --data-dir "$STATE/etcd" --unsafe-no-fsync --heartbeat-interval 500 --election-timeout 2500 --log-level warn
  run apiserver kube-apiserver --etcd-servers http://127.0.0.1:2379 --advertise-address $API --cert-dir "$CLUSTER/pki" \
    --service-cluster-ip-range 198.19.0.0/16 --service-account-issuer https://kubernetes.default.svc \
    --service-account-signing-key-file "$CLUSTER/pki/sa.key" --service-account-key-file "$CLUSTER/pki/sa.key" \
    --token-auth-file "$STATE/tokens.csv" --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
    --kubelet-preferred-address-types InternalIP --allow-privileged --profiling=false
  for user in kcm scheduler dns; do kubeconfig $user > "$STATE/$user.conf"; done
  wait_until $API_MAX "the API server" api_is_ready
  run controller-manager kube-controller-manager --kubeconfig "$STATE/kcm.conf" --leader-elect=false --secure-port 0 \
    --root-ca-file "$CLUSTER/pki/apiserver.crt" --service-account-private-key-file "$CLUSTER/pki/sa.key" \
    --enable-hostpath-provisioner --profiling=false
  run scheduler kube-scheduler --kubeconfig "$STATE/scheduler.conf" --leader-elect=false --secure-port 0 --profiling=false
  cat > "$STATE/Corefile" <<C
.:53 {
  bind $API
  errors
  ready $API:8181
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $STATE/dns.conf
    pods insecure
    ttl 1
  }
}
C
  run coredns coredns -conf "$STATE/Corefile"
}

if [ "$i" = 1 ]; then control_plane; fi

# restrict_oom_score_adj and oomScoreAdj: even root may lack CAP_SYS_RESOURCE here.
cat > "$STATE/containerd.toml" <<C
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$STATE/cni"
C
cat > "$STATE/cni/10-brisq.conflist" <<C
{"cniVersion": "1.0.0", "name": "brisq", "plugins": [
 {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "198.18.$i.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
 {"type": "portmap", "capabilities": {"portMappings": true}}]}
C
cat > "$STATE/kubelet.yaml" <<C
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /brisq/$NODE
clusterDNS: [$API]
clusterDomain: cluster.local
resolvConf: ""
failSwapOn: false
oomScoreAdj: 0
makeIPTablesUtilChains: false
imageGCHighThresholdPercent: 100
imageMaximumGCAge: 0s
evictionHard: {memory.available: 1Mi, nodefs.available: 0%, imagefs.available: 0%, nodefs.inodesFree: 0%, imagefs.inodesFree: 0%}
volumePluginDir: $STATE/plugins
nodeStatusUpdateFrequency: 5s
syncFrequency: 10s
maxPods: 100
serializeImagePulls: false
C
cat > "$STATE/proxy.yaml" <<C
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: $STATE/proxy.conf}
clusterCIDR: 198.18.0.0/17
hostnameOverride: $NODE
nftables: {minSyncPeriod: 100ms}
oomScoreAdj: 0
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
C
kubeconfig "$NODE" > "$STATE/kubelet.conf"
kubeconfig proxy > "$STATE/proxy.conf"
run containerd containerd --config "$STATE/containerd.toml"
containerd_is_ready() { ctr version >/dev/null 2>&1; }
wait_until $CONTAINERD_MAX "containerd" containerd_is_ready
for image in "$IMAGES"/*.tar; do ctr -n k8s.io images import "$image"; done
run kubelet kubelet --config "$STATE/kubelet.yaml" --kubeconfig "$STATE/kubelet.conf" --hostname-override "$NODE" \
  --node-ip "$IP" --cert-dir "$STATE/kubelet-pki" --v 1
run proxy kube-proxy --config "$STATE/proxy.yaml"
while :; do
  wait -n || true
  echo "$(date +%T) a child of $NODE ended"
  jobs -l | grep -v Running || true
  sleep 0.5
done
