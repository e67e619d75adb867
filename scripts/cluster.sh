# Shared by up.sh and down.sh; not run by itself. The cluster on this machine: two of each role, their ports, their pids.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
home="${HALLEY_CLUSTER_HOME:-$PWD/.cluster}"

say() { printf '%s\n' "$*" >&2; }
die() { say "cluster: $*"; exit 1; }

# port ROLE WHAT NUMBER: the first of each role has the default ports, the second those plus 100.
port() {
  local base
  case "$1.$2" in
    comet.tcp) base=3101 ;; comet.ws) base=3102 ;; comet.private) base=3108 ;; comet.grpc) base=3109 ;;
    logic.http) base=3111 ;; logic.private) base=3118 ;; logic.grpc) base=3119 ;;
    router.private) base=3128 ;; router.grpc) base=3129 ;; job.private) base=3138 ;;
    *) die "no port $1.$2" ;;
  esac
  echo $((base + 100 * ($3 - 1)))
}

# running NAME: does the process of the pid file live, and is it ours? Ours works in its folder.
running() {
  local pid
  [ -s "$home/$1/pid" ] || return 1
  pid="$(cat "$home/$1/pid")"
  kill -0 "$pid" 2>/dev/null && [ "$(readlink "/proc/$pid/cwd")" = "$home/$1" ]
}

# gone PID: has it ended? A child that nobody waited for stays as a zombie.
gone() {
  ! kill -0 "$1" 2>/dev/null || [ "$(sed -n 's/^State:\s*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null)" = Z ]
}
