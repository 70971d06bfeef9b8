#!/bin/bash
# A Kubernetes cluster on this machine, without Docker: cluster.sh COMMAND
#   up [NODES]      starts it; kubeconfig in $CLUSTER/admin.conf
#   down            ends it: no process, mount, interface or rule is left
#   node N          starts node N (again)
#   kill-node N     ends node N as a power cut does
#   exec N CMD...   runs a command in node N's namespaces
#   stop-api        freezes the API server; continue-api lets it go on
#
# A node is one process tree in network, mount and process namespaces of its own, joined to the bridge brisq0. Node 1 also
# runs the control plane. Killing a namespace's first process ends everything in it.
#
# $CLUSTER   folder of its state, on a disk: on tmpfs its pages would count against pods' memory limits
# $BIN       folder with kube-apiserver, etcd, kubelet, ... and coredns
# $IMAGES    folder with OCI archives (*.tar) that every node gets
#
# Node N is 198.18.255.(N+1), its pods are 198.18.N.0/24, services 198.19.0.0/16: the range set aside for tests of networks.
set -euo pipefail
HERE=$(dirname "$(readlink -f "$0")")
: "${CLUSTER:?folder of the state}" "${BIN:?folder of the programs}" "${IMAGES:?folder of the images}"
export CLUSTER BIN IMAGES
API=198.18.255.2
NODES_MAX=3

cgroups() {
  local c
  for c in /sys/fs/cgroup/*/; do
    if mountpoint -q "$c" && [ "$c" != /sys/fs/cgroup/unified/ ]; then echo "$c"; fi
  done
}

now_ms() { echo $(($(date +%s%N) / 1000000)); }

up() {
  local nodes=${1:-1} i start
  start=$(now_ms)
  if ip link show brisq0 >/dev/null 2>&1; then
    echo "a cluster is up already: cargo xtask cluster down" >&2
    exit 1
  fi
  trap 'echo "the cluster did not come up; its logs are in $CLUSTER/log" >&2; down' ERR
  mkdir -p "$CLUSTER/pki" "$CLUSTER/log"
  cd "$CLUSTER"
  [ -f pki/sa.key ] || openssl genrsa -out pki/sa.key 2048 2>/dev/null
  ip link add brisq0 type bridge
  ip addr add 198.18.255.1/24 dev brisq0
  ip link set brisq0 up
  ip route replace 198.19.0.0/16 via $API
  for i in $(seq "$nodes"); do node "$i"; done
  kubeconfig admin > admin.conf
  wait_until 120 "the API server" api_is_ready
  echo "api ready    $(($(now_ms) - start)) ms"
  wait_until 120 "the nodes" nodes_are_ready "$nodes"
  echo "nodes ready  $(($(now_ms) - start)) ms"
  wait_until 60 "DNS" dns_is_ready
  "$BIN/kubectl" --kubeconfig admin.conf apply -f "$HERE/storage-class.yaml" > "$CLUSTER/log/storage-class"
  echo "dns ready    $(($(now_ms) - start)) ms"
  trap - ERR
}

# wait_until SECONDS WHAT COMMAND...
wait_until() {
  local seconds=$1 what=$2 end
  end=$(($(now_ms) + seconds * 1000))
  shift 2
  until "$@"; do
    if [ "$(now_ms)" -gt "$end" ]; then
      echo "$what: not ready after $seconds s" >&2
      return 1
    fi
    sleep 0.1
  done
}

api_is_ready() { curl -sk --max-time 2 "https://$API:6443/readyz" 2>/dev/null | grep -q '^ok'; }
dns_is_ready() { curl -s --max-time 1 "http://$API:8181/ready" 2>/dev/null | grep -q OK; }
nodes_are_ready() {
  local ready
  ready=$("$BIN/kubectl" --kubeconfig "$CLUSTER/admin.conf" get nodes \
    -o jsonpath='{range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' 2>/dev/null | grep -c True) || true
  [ "${ready:-0}" -eq "$1" ]
}

kubeconfig() {
  cat <<K
apiVersion: v1
kind: Config
clusters: [{name: brisq, cluster: {server: "https://$API:6443", certificate-authority: $CLUSTER/pki/apiserver.crt}}]
users: [{name: $1, user: {token: $1-token}}]
contexts: [{name: brisq, context: {cluster: brisq, user: $1}}]
current-context: brisq
K
}

node() {
  local i=$1 c d shell pid
  cd "$CLUSTER"
  for c in $(cgroups); do
    mkdir -p "${c}brisq/node$i"
    if [ -f "${c}cpuset.cpus" ]; then
      for d in brisq "brisq/node$i"; do
        cat "${c}cpuset.cpus" > "$c$d/cpuset.cpus"
        cat "${c}cpuset.mems" > "$c$d/cpuset.mems"
      done
    fi
  done
  # Mount points only; what is mounted there lives in the node's own namespace.
  mkdir -p /var/lib/{kubelet,containerd,cni} /var/log/{pods,containers} /run/{containerd,netns}
  setsid nohup unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private \
    bash "$HERE/node.sh" "$i" > "log/node$i.log" 2>&1 &
  shell=$!
  until pid=$(cat "/proc/$shell/task/$shell/children" 2>/dev/null) && [ -n "$pid" ]; do sleep 0.02; done
  pid=${pid// /}
  echo "$pid" > "node$i.pid"
  until [ "$(readlink "/proc/$pid/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
  ip link add "brisq$i" type veth peer name eth0 netns "$pid"
  ip link set "brisq$i" master brisq0 up
  ip route replace "198.18.$i.0/24" via "198.18.255.$((i + 1))"
}

exec_in() {
  local i=$1
  shift
  nsenter -t "$(cat "$CLUSTER/node$i.pid")" -n -m -p "$@"
}

signal_api() { exec_in 1 kill "-$1" "$(cat "$CLUSTER/state1/apiserver.pid")"; }

kill_node() {
  kill -9 "$(cat "$CLUSTER/node$1.pid")" 2>/dev/null || true
  rm -f "$CLUSTER/node$1.pid"
  ip link del "brisq$1" 2>/dev/null || true
  remove_cgroups "$1"
}

# They can be removed once the last process in them is gone.
remove_cgroups() {
  local try d
  for try in $(seq 50); do
    d=$(find /sys/fs/cgroup/*/brisq/node"$1" -depth -type d 2>/dev/null) || true
    [ -z "$d" ] && return
    # shellcheck disable=SC2086
    rmdir $d 2>/dev/null || true
    sleep 0.1
  done
  echo "after $try tries cgroups are left: $d" >&2
}

down() {
  local i
  for i in $(seq $NODES_MAX); do
    if [ -f "$CLUSTER/node$i.pid" ]; then kill_node "$i"; fi
  done
  ip link del brisq0 2>/dev/null || true
  rmdir /sys/fs/cgroup/*/brisq 2>/dev/null || true
  rm -rf "$CLUSTER"/state* "$CLUSTER/volumes"
}

command=${1:?a command}
shift
case $command in
  up | down | node) "$command" "$@" ;;
  kill-node) kill_node "$@" ;;
  exec) exec_in "$@" ;;
  stop-api) signal_api STOP ;;
  continue-api) signal_api CONT ;;
  *) echo "cluster.sh: there is no command $command" >&2; exit 2 ;;
esac
