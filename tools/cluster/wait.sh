# Waiting with an end to it, for both scripts.
now_ms() { echo $(($(date +%s%N) / 1000000)); }

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
