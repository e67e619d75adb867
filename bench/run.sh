#!/usr/bin/env bash
# The benchmarks of docs/performance.md: one process of each role on real Kafka, Redis and, for conversations, MariaDB, one load
# generator, all on this machine. Prints a table for each scenario, keeps all as JSON in bench/results, and in the end holds it
# against the goals in one table.
#
#   bench/run.sh                  everything, some minutes
#   bench/run.sh --smoke          everything once, small: does it work at all?
#   bench/run.sh SCENARIO...      only those: room lone large users api idle connect ramp chat chat-kill chat-all calls
#
# Environment: HALLEY (the binary; bin/halley), HALLEY_BENCH_KAFKA and HALLEY_BENCH_REDIS (servers that run already;
# else scripts/servers.sh starts them, and MariaDB always), DURATION (10s), OUT (the JSON file), KEEP (keep logs and data).
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
halley="${HALLEY:-$root/bin/halley}"
smoke=
if [ "${1:-}" = --smoke ]; then smoke=1; shift; fi
[ $# -gt 0 ] || set -- room lone large users api idle connect ramp chat chat-kill chat-all calls

[ -x "$halley" ] || { echo "bench: no $halley; run make build" >&2; exit 1; }
dir="$(mktemp -d "${TMPDIR:-/tmp}/halley-bench.XXXXXX")"
pids=()
stop_roles() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  pids=()
}
cleanup() {
  stop_roles
  "$root/scripts/servers.sh" stop "$dir/servers" >/dev/null 2>&1 || true
  if [ "${KEEP:-}" ]; then echo "bench: logs are in $dir" >&2; else rm -rf "$dir"; fi
}
trap cleanup EXIT

ulimit -n "$(ulimit -Hn)"
"$root/scripts/install.sh" redis kafka

# Servers.
if [ -z "${HALLEY_BENCH_KAFKA:-}" ] || [ -z "${HALLEY_BENCH_REDIS:-}" ]; then
  "$root/scripts/servers.sh" start "$dir/servers"
  eval "$("$root/scripts/servers.sh" env "$dir/servers")"
  HALLEY_BENCH_KAFKA=$HALLEY_TEST_KAFKA HALLEY_BENCH_REDIS=$HALLEY_TEST_REDIS
fi

# Settings that all roles share, and free ports.
port() {
  local p
  while :; do
    p=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null || { echo "$p"; return; }
  done
}
tcp=$(port) ws=$(port) http=$(port)
key="hk_bench_$(head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n')"
head -c 32 /dev/urandom | base64 | tr -d '\n' >"$dir/token-key"
export HALLEY_API_KEY="$key" HALLEY_URL="http://127.0.0.1:$http"
export HALLEY_CLUSTER_SECRET="$(head -c 24 /dev/urandom | base64)"
cat >"$dir/halley.yaml" <<YAML
data_dir: $dir
log: {level: ${LOG_LEVEL:-info}}
kafka: {brokers: ["$HALLEY_BENCH_KAFKA"], prefix: "bench$$."}
redis: {addrs: ["$HALLEY_BENCH_REDIS"], prefix: "bench$$"}
comet:
  name: bench
  tcp_addr: 127.0.0.1:$tcp
  ws_addr: 127.0.0.1:$ws
  grpc_addr: 127.0.0.1:$(port)
  private_addr: 127.0.0.1:$(port)
  handshake_rate: 0
logic:
  target: 127.0.0.1:${logic:=$(port)}
  grpc_addr: 127.0.0.1:$logic
  http_addr: 127.0.0.1:$http
  private_addr: 127.0.0.1:$(port)
  token_keys: ["local:HS256:@$dir/token-key"]
  http_api_keys: ["bench:$(printf %s "$key" | sha256sum | cut -d' ' -f1):admin:*"]
  http_rate: 0
router:
  target: 127.0.0.1:${router:=$(port)}
  grpc_addr: 127.0.0.1:$router
  private_addr: 127.0.0.1:$(port)
  settle_delay: 3s
job:
  private_addr: 127.0.0.1:$(port)
YAML
export HALLEY_CONFIG="$dir/halley.yaml"

ready() { # ADDR PID
  local end=$((SECONDS + 40))
  until curl -fs -o /dev/null "http://$1/readyz"; do
    kill -0 "$2" 2>/dev/null && [ $SECONDS -lt $end ] || { echo "bench: a role did not start:" >&2; tail -n 3 "$dir"/*.log >&2; exit 1; }
    sleep 0.1
  done
}
private() { sed -n "/^$1:/,/^[a-z]/s/^  private_addr: //p" "$dir/halley.yaml"; }
roles=
# What conversations need besides: a database, and no limit on what one user may send.
chat_settings=()
database() {
  local address
  [ ${#chat_settings[@]} = 0 ] || return 0 # there is one
  "$root/scripts/install.sh" mariadb
  "$root/scripts/servers.sh" start "$dir/servers" mariadb
  eval "$("$root/scripts/servers.sh" env "$dir/servers" mariadb)"
  address="${HALLEY_TEST_MYSQL#root@tcp(}" address="${address%)/}"
  mariadb-admin --no-defaults -h "${address%:*}" -P "${address#*:}" -u root create "bench$$"
  chat_settings=(HALLEY_STORE_DRIVER=mysql "HALLEY_STORE_DSN=${HALLEY_TEST_MYSQL}bench$$" HALLEY_LOGIC_CHAT_RATE=0 HALLEY_LOGIC_CHAT_READ_RATE=0)
}
start_all() {
  local all
  all=$(port)
  mkdir -p "$dir/all"
  install -m 600 "$dir/token-key" "$dir/all/"
  env -u HALLEY_CONFIG HALLEY_DATA_DIR="$dir/all" HALLEY_COMET_TCP_ADDR="127.0.0.1:$tcp" HALLEY_COMET_WS_ADDR="127.0.0.1:$ws" \
    HALLEY_LOGIC_HTTP_ADDR="127.0.0.1:$http" HALLEY_ALL_PRIVATE_ADDR="127.0.0.1:$all" HALLEY_ALL_TURN_ADDR="127.0.0.1:0" HALLEY_LOGIC_CHAT_RATE=0 \
    HALLEY_LOGIC_CHAT_READ_RATE=0 HALLEY_COMET_HANDSHAKE_RATE=0 "$halley" all >>"$dir/all.log" 2>&1 &
  pids+=($!)
  roles="all=$!"
  ready "127.0.0.1:$all" $!
}
start_roles() { # settings for this start as NAME=VALUE
  local role
  roles=
  for role in router logic job comet; do
    env "$@" "$halley" "$role" >>"$dir/$role.log" 2>&1 &
    pids+=($!)
    roles="$roles${roles:+,}$role=$!"
    ready "$(private $role)" $!
  done
}

# respawn ROLE PID: starts the role once more when that process is gone.
respawn() {
  while kill -0 "$2" 2>/dev/null; do sleep 0.2; done
  exec env "${chat_settings[@]}" "$halley" "$1" >>"$dir/$1.log" 2>&1
}

duration="${DURATION:-10s}" warm=3s
small() { if [ "$smoke" ]; then echo "$2"; else echo "$1"; fi; }
[ "$smoke" ] && duration=1s warm=500ms

out="${OUT:-}"
if [ -z "$out" ]; then
  out="$root/bench/results/$(date -u +%Y-%m-%dT%H%M%SZ).jsonl"
  [ "$smoke" ] && out="$dir/smoke.jsonl"
fi
mkdir -p "$(dirname "$out")"
printf '{"date":"%s","commit":"%s","machine":"%s, %s processors, %s","version":"%s"}\n' "$(date -u +%FT%TZ)" \
  "$(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown)" \
  "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)" "$(nproc)" "Linux $(uname -r)" "$("$halley" version)" >>"$out"

run() { # SCENARIO FLAGS...
  local scenario=$1 addr="127.0.0.1:$tcp"
  shift
  case " $* " in *" --ws "*) addr="127.0.0.1:$ws" ;; esac
  printf '\n$ halley bench %s %s\n' "$scenario" "$*"
  "$halley" bench "$scenario" --comet "$addr" --pids "$roles" --json "$out" "$@"
}
timed() { run "$@" --duration "$duration" --warm-up "$warm"; }

for scenario in "$@"; do
  echo "== $scenario"
  case "$scenario" in
    room) # each delivery its own write, against the bare loop
      start_roles
      timed room --members "$(small 1000 100)" --rate 40 --limit
      timed room --members "$(small 1000 100)" --rate 40 --limit --ws
      ;;
    lone)
      start_roles
      timed lone --members "$(small 1000 100)"
      timed lone --members "$(small 1000 100)" --ws
      ;;
    large) # goim's published scenario; then with a longer flush window
      start_roles
      timed room --members "$(small 10000 500)" --rate 40
      timed room --members "$(small 10000 500)" --rate 40 --ws
      stop_roles
      start_roles HALLEY_COMET_FLUSH_MAX=330ms
      timed room --members "$(small 10000 500)" --rate 40
      ;;
    users)
      start_roles
      timed users --users "$(small 1000 100)" --rate "$(small 2000 200)"
      ;;
    api)
      start_roles
      timed api --users "$(small 1000 100)"
      timed api --users "$(small 1000 100)" --batch 50
      ;;
    idle) # a fresh comet each: memory that one run leaves would hide what the next takes
      start_roles
      run idle --sessions "$(small 10000 500)" --wait "$(small 10s 1s)"
      stop_roles
      start_roles
      run idle --sessions "$(small 10000 500)" --wait "$(small 10s 1s)" --ws
      ;;
    connect)
      start_roles
      run connect --sessions "$(small 15000 1000)"
      stop_roles
      start_roles
      run connect --sessions "$(small 15000 1000)" --ws
      ;;
    ramp)
      start_roles HALLEY_COMET_FLUSH_MAX=400ms HALLEY_COMET_OUTBOX_BYTES=2097152
      run ramp --members "$(small 10000 500)" --from "$(small 100 50)" --step "$(small 2s 500ms)"
      ;;
    chat) # direct flat out and at two rates, a group, catching up
      database
      start_roles "${chat_settings[@]}"
      timed chat --pairs "$(small 200 10)" direct
      timed chat --pairs "$(small 200 10)" --rate "$(small 1000 100)" direct
      timed chat --pairs "$(small 200 10)" --rate "$(small 100 20)" direct
      timed chat --members "$(small 200 20)" --rate 20 group
      run chat --conversations "$(small 100 10)" --rounds "$(small 20 2)" catch-up
      ;;
    chat-kill) # job, then logic, is killed while messages flow: what is in the store then
      database
      start_roles "${chat_settings[@]}"
      for role in job logic; do
        pid="${roles##*"$role"=}"
        respawn "$role" "${pid%%,*}" &
        pids+=($!)
      done
      run chat --pairs "$(small 200 10)" --rate "$(small 1000 100)" --duration "$(small 20s 4s)" --kill job,logic kill
      ;;
    calls) # alone, and while a bulk push goes out to 10,000; a session may invite more often than people do
      database
      start_roles "${chat_settings[@]}" HALLEY_LOGIC_CALL_INVITE_RATE=100000
      for rate in $(small "10 50 200" 20); do
        timed calls --pairs "$(small 200 20)" --rate "$rate"
      done
      for rate in $(small "10 50 200" 20); do
        timed calls --pairs "$(small 200 20)" --rate "$rate" --bulk-members "$(small 10000 200)"
      done
      ;;
    chat-all) # the same flat out over one process and SQLite
      start_all
      HALLEY_API_KEY="$(cat "$dir/all/api-key")" timed chat --data-dir "$dir/all" --pairs "$(small 200 10)" direct
      ;;
    *)
      echo "bench: no scenario $scenario" >&2
      exit 2
      ;;
  esac
  stop_roles
done

echo
"$halley" bench report "$out"
[ "$smoke" ] || echo "results are in $out; as Markdown: $halley bench report --markdown $out"
