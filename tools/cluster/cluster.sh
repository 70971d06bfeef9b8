#!/bin/bash
# A Kubernetes cluster on this machine, without Docker: cluster.sh COMMAND
#   up [NODES] [test]  starts it, for a test that ends it or by hand; kubeconfig in $CLUSTER/admin.conf
#   down               ends it: no process, mount, interface or rule is left; fine when there is none
#   clear              ends what a test or an `up` left that is dead: whoever calls it knows that no test runs
#   node N             starts node N (again)
#   kill-node N        ends node N as a power cut does
#   exec N CMD...      runs a command in node N's namespaces
#   stop-api           freezes the API server; continue-api lets it go on
#
# A node is one process tree in network, mount and process namespaces of its own, joined to the bridge brisq0. Node 1 also
# runs the control plane. Killing a namespace's first process ends everything in it.
#
# A machine has one cluster, whoever started it: /run/brisq-cluster says where its state is and for what it is up.
#
# $CLUSTER   folder of its state, on a disk: on tmpfs its pages would count against pods' memory limits
# $BIN       folder with kube-apiserver, etcd, kubelet, ... and coredns; needed to start something
# $IMAGES    folder with OCI archives (*.tar) that every node gets; needed to start something
#
# Node N is 198.18.255.(N+1), its pods are 198.18.N.0/24, services 198.19.0.0/16: the range set aside for tests of networks.
set -euo pipefail
HERE=$(dirname "$(readlink -f "$0")")
# shellcheck source=wait.sh
. "$HERE/wait.sh"
: "${CLUSTER:?folder of the state}"
MARK=/run/brisq-cluster
API=198.18.255.2
NODES_MAX=3
# How long a part may take to be there, s.
PROCESS_MAX=10
API_MAX=120
NODES_READY_MAX=120
DNS_MAX=60

cgroups() {
  local c
  for c in /sys/fs/cgroup/*/; do
    if mountpoint -q "$c" && [ "$c" != /sys/fs/cgroup/unified/ ]; then echo "$c"; fi
  done
}

up() {
  local nodes=${1:-1} purpose=${2:-hand} i start
  start=$(now_ms)
  if is_up; then
    echo "a cluster is up already, with its state in $(state): cargo xtask cluster down" >&2
    exit 1
  fi
  trap 'set +e; echo "the cluster did not come up; its logs are in $CLUSTER/log" >&2; down' EXIT
  trap 'exit 130' HUP INT TERM
  printf '%s\n' "$CLUSTER" "$purpose" > $MARK
  mkdir -p "$CLUSTER/pki" "$CLUSTER/log"
  cd "$CLUSTER"
  [ -f pki/sa.key ] || openssl genrsa -out pki/sa.key 2048 2>/dev/null
  ip link add brisq0 type bridge
  ip addr add 198.18.255.1/24 dev brisq0
  ip link set brisq0 up
  ip route replace 198.19.0.0/16 via $API
  for i in $(seq "$nodes"); do node "$i"; done
  kubeconfig admin > admin.conf
  wait_until $API_MAX "the API server" api_is_ready
  echo "api ready    $(($(now_ms) - start)) ms"
  wait_until $NODES_READY_MAX "the nodes" nodes_are_ready "$nodes"
  echo "nodes ready  $(($(now_ms) - start)) ms"
  wait_until $DNS_MAX "DNS" dns_is_ready
  "$BIN/kubectl" --kubeconfig admin.conf apply -f "$HERE/storage-class.yaml" > "$CLUSTER/log/storage-class"
  echo "dns ready    $(($(now_ms) - start)) ms"
  trap - EXIT HUP INT TERM
}

is_up() { ip link show brisq0 >/dev/null 2>&1; }

# Where the state of the cluster that is up lies, which another checkout may have started; ours if nothing says so.
state() { if [ -f $MARK ]; then head -1 $MARK; else echo "$CLUSTER"; fi; }

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
  : "${BIN:?folder of the programs}" "${IMAGES:?folder of the images}"
  export CLUSTER BIN IMAGES
  if [ ! -e /sys/fs/cgroup/memory/tasks ]; then
    echo "nodes need cgroup v1, and this machine has none" >&2
    exit 1
  fi
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
  # Until its child is known: that ends with it.
  echo "$shell" > "node$i.pid"
  wait_until $PROCESS_MAX "the first process of node $i" first_process "$shell" "$i"
  pid=$(cat "node$i.pid")
  wait_until $PROCESS_MAX "the network of node $i" own_network "$pid"
  ip link add "brisq$i" type veth peer name eth0 netns "$pid"
  ip link set "brisq$i" master brisq0 up
  ip route replace "198.18.$i.0/24" via "198.18.255.$((i + 1))"
}

first_process() {
  local child
  child=$(cat "/proc/$1/task/$1/children" 2>/dev/null) && [ -n "$child" ] && echo "${child// /}" > "node$2.pid"
}

own_network() {
  local network
  network=$(readlink "/proc/$1/ns/net") && [ "$network" != "$(readlink /proc/self/ns/net)" ]
}

# The first process of node N, while it lives: a file that outlived a reboot may hold the number of anybody's.
pid_of() {
  local pid
  pid=$(cat "$CLUSTER/node$1.pid" 2>/dev/null) || return 1
  [[ $(tr '\0' ' ' 2>/dev/null < "/proc/$pid/cmdline") == *"/node.sh $1 " ]] && echo "$pid"
}

exec_in() {
  local pid
  pid=$(pid_of "$1") || { echo "node $1 does not run" >&2; exit 1; }
  shift
  nsenter -t "$pid" -n -m -p "$@"
}

signal_api() { exec_in 1 kill "-$1" "$(cat "$CLUSTER/state1/apiserver.pid")"; }

kill_node() {
  local pid
  # One that never came up may have left the rest.
  if pid=$(pid_of "$1"); then kill -9 "$pid" 2>/dev/null || true; fi
  rm -f "$CLUSTER/node$1.pid"
  ip link del "brisq$1" 2>/dev/null || true
  remove_cgroups "$1"
}

# They can be removed once the last process in them is gone.
remove_cgroups() {
  local try d
  for try in $(seq 50); do
    d=$(find /sys/fs/cgroup/*/brisq/node"$1" -depth -type d 2>/dev/null) || true
    # Of a trap, a bare `return` would answer what the trap found.
    [ -z "$d" ] && return 0
    # shellcheck disable=SC2086
    rmdir $d 2>/dev/null || true
    sleep 0.1
  done
  echo "after $try tries cgroups are left: $d" >&2
}

down() {
  local i
  CLUSTER=$(state)
  for i in $(seq $NODES_MAX); do kill_node "$i"; done
  ip link del brisq0 2>/dev/null || true
  rmdir /sys/fs/cgroup/*/brisq 2>/dev/null || true
  rm -rf "$CLUSTER"/state* "$CLUSTER/volumes" $MARK
}

clear() {
  local purpose i
  CLUSTER=$(state)
  purpose=$(sed -n 2p $MARK 2>/dev/null) || true
  if is_up && [ "$purpose" != test ]; then
    for i in $(seq $NODES_MAX); do
      if pid_of "$i" >/dev/null; then
        echo "a cluster is up that no test started, with its state in $CLUSTER: cargo xtask cluster down" >&2
        exit 1
      fi
    done
  fi
  down
}

command=${1:?a command}
shift
if [ "$(id -u)" != 0 ]; then
  echo "cluster.sh: nodes are namespaces: run it as root" >&2
  exit 1
fi
case $command in
  up | down | clear | node) "$command" "$@" ;;
  kill-node) kill_node "$@" ;;
  exec) exec_in "$@" ;;
  stop-api) signal_api STOP ;;
  continue-api) signal_api CONT ;;
  *) echo "cluster.sh: there is no command $command" >&2; exit 2 ;;
esac
