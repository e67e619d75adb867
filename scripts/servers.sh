#!/usr/bin/env bash
# Real servers for tests: one Redis and one Kafka (KRaft, one node) on free loopback ports, data and logs in DIR.
#
#   scripts/servers.sh start DIR [redis|kafka]   starts what does not run yet and waits until it answers
#   scripts/servers.sh stop DIR [redis|kafka]    stops what runs, by pid; the data stays
#   scripts/servers.sh kill DIR [redis|kafka]    the same with SIGKILL
#   scripts/servers.sh pause DIR NAME            SIGSTOP: it holds its connections and answers nothing
#   scripts/servers.sh resume DIR NAME           SIGCONT
#   scripts/servers.sh wipe DIR redis|kafka|mariadb  removes the data of one that is stopped
#   scripts/servers.sh env DIR                   prints shell assignments: HALLEY_TEST_KAFKA, HALLEY_TEST_REDIS
#   scripts/servers.sh env DIR redis-cluster     prints HALLEY_TEST_REDIS and HALLEY_TEST_REDIS_CLUSTER for that one
#   scripts/servers.sh env DIR mariadb           prints HALLEY_TEST_MYSQL, a DSN without database
#   scripts/servers.sh env DIR coturn            prints HALLEY_TEST_TURN, host:port, and HALLEY_TEST_TURN_SECRET
#
# On demand only: redis-cluster, a Redis Cluster of one node that owns all slots (it refuses whatever touches two), mariadb,
# whose user root has no password, and coturn with the configuration of deploy/coturn, opened for loopback.
# A server keeps its port over a restart. Redis writes nothing to disk: it comes back empty.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"

say() { printf 'servers: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2; exit 2; }

[ $# -ge 2 ] || usage
command="$1"
mkdir -p "$2"
dir="$(cd "$2" && pwd)"
shift 2

# free_port prints a loopback port that nothing listens on. Another process may take it before we do: start tries again.
free_port() {
  local port
  while :; do
    # Below the range that the kernel gives to clients (32768 and up), so that no connection takes it while a server is down.
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
}

# port NAME prints the server's port, the same one for ever.
port() {
  [ -s "$dir/$1.port" ] || free_port >"$dir/$1.port"
  cat "$dir/$1.port"
}

# running NAME: is the process of the pid file there, and ours?
running() {
  local pid
  [ -s "$dir/$1.pid" ] || return 1
  pid="$(cat "$dir/$1.pid")"
  # The number may belong to a stranger after a reboot: ours works in its folder.
  kill -0 "$pid" 2>/dev/null || return 1
  case "$(readlink "/proc/$pid/cwd")" in
    # MariaDB goes on into its data.
    "$dir/$1" | "$dir/$1/data") ;;
    *) return 1 ;;
  esac
}

# await NAME SECONDS COMMAND...: until the command succeeds; fails when the process ends or the time is over.
await() {
  local name="$1" end=$((SECONDS + $2))
  shift 2
  until "$@" >/dev/null 2>&1; do
    running "$name" || return 1
    [ $SECONDS -lt $end ] || return 1
    sleep 0.1
  done
}

start_redis() {
  local port conf
  command -v redis-server >/dev/null || die "no redis-server; run scripts/install.sh redis"
  port="$(port redis)"
  mkdir -p "$dir/redis"
  conf="$dir/redis/redis.conf"
  cat >"$conf" <<CONF
bind 127.0.0.1
port $port
dir "$dir/redis"
daemonize no
save ""
appendonly no
CONF
  cd "$dir/redis"
  setsid redis-server "$conf" >>"$dir/redis.log" 2>&1 </dev/null &
  echo $! >"$dir/redis.pid"
  await redis 20 redis-cli -h 127.0.0.1 -p "$port" ping
}

start_redis-cluster() {
  local port conf
  command -v redis-server >/dev/null || die "no redis-server; run scripts/install.sh redis"
  port="$(port redis-cluster)"
  mkdir -p "$dir/redis-cluster"
  rm -f "$dir/redis-cluster/nodes.conf" # it comes back empty, slots included
  conf="$dir/redis-cluster/redis.conf"
  cat >"$conf" <<CONF
bind 127.0.0.1
port $port
dir "$dir/redis-cluster"
daemonize no
save ""
appendonly no
cluster-enabled yes
cluster-config-file nodes.conf
cluster-port $(port redis-cluster-bus)
cluster-announce-ip 127.0.0.1
CONF
  cd "$dir/redis-cluster"
  setsid redis-server "$conf" >>"$dir/redis-cluster.log" 2>&1 </dev/null &
  echo $! >"$dir/redis-cluster.pid"
  await redis-cluster 20 redis-cli -h 127.0.0.1 -p "$port" ping || return 1
  redis-cli -h 127.0.0.1 -p "$port" cluster addslotsrange 0 16383 >/dev/null
  await redis-cluster 20 owns_all "$port"
}

owns_all() { redis-cli -h 127.0.0.1 -p "$1" cluster info | grep -q '^cluster_state:ok'; }

start_kafka() {
  local port controller conf jars="$root/.cache/kafka/4.4.0" log="-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
  [ -e "$jars/.complete" ] || die "no Kafka; run scripts/install.sh kafka"
  port="$(port kafka)"
  controller="$(port kafka-controller)"
  mkdir -p "$dir/kafka"
  conf="$dir/kafka/server.properties"
  cat >"$conf" <<CONF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$dir/kafka/data
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.min.session.timeout.ms=1000
group.initial.rebalance.delay.ms=0
# A test's data is gone with its folder: no recovery of minutes, no cleaner at work meanwhile.
log.cleaner.enable=true
num.recovery.threads.per.data.dir=2
# After SIGKILL the broker's old registration must time out before the new one is let in.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
CONF
  [ -e "$dir/kafka/data/meta.properties" ] ||
    java -Xmx128m -cp "$jars/*" $log kafka.tools.StorageTool format -t "$(head -c 16 /dev/urandom | base64 | tr '+/' 'ab' | head -c 22)" \
      -c "$conf" >>"$dir/kafka.log" 2>&1 || return 1
  cd "$dir/kafka"
  setsid java -Xms256m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$jars/*" \
    $log kafka.Kafka "$conf" >>"$dir/kafka.log" 2>&1 </dev/null &
  echo $! >"$dir/kafka.pid"
  await kafka 60 kafka_answers "$port"
}

# kafka_answers PORT: sends an ApiVersions request (key 18, version 0, correlation id 1) and waits for an answer. An open
# port is not enough: the broker listens before it takes requests.
kafka_answers() {
  local answer
  exec 4<>"/dev/tcp/127.0.0.1/$1" || return 1
  printf '\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x01\xff\xff' >&4
  answer="$(timeout 2 head -c 8 <&4 | od -An -tx1 | tr -d ' \n')"
  exec 4>&-
  [ "${answer:8:8}" = 00000001 ]
}

start_mariadb() {
  local port me
  PATH="$PATH:/usr/sbin"
  command -v mariadbd >/dev/null || die "no mariadbd; run scripts/install.sh mariadb"
  port="$(port mariadb)"
  me="$(id -un)"
  mkdir -p "$dir/mariadb"
  cd "$dir/mariadb"
  if [ ! -e "$dir/mariadb/data/.complete" ]; then
    rm -rf "$dir/mariadb/data"
    mariadb-install-db --no-defaults --user="$me" --datadir="$dir/mariadb/data" --auth-root-authentication-method=normal \
      --skip-test-db >>"$dir/mariadb.log" 2>&1 || return 1
    touch "$dir/mariadb/data/.complete"
  fi
  # The socket's path may have 107 bytes; nobody uses it. Commits are on the disk when they return, as in production.
  setsid mariadbd --no-defaults --user="$me" --datadir="$dir/mariadb/data" --bind-address=127.0.0.1 --port="$port" \
    --socket="/tmp/halley-mariadb-$port.sock" --innodb-buffer-pool-size=128M --innodb-flush-log-at-trx-commit=1 \
    >>"$dir/mariadb.log" 2>&1 </dev/null &
  echo $! >"$dir/mariadb.pid"
  await mariadb 60 mariadb-admin --no-defaults -h 127.0.0.1 -P "$port" -u root ping
}

start_coturn() {
  local port
  command -v turnserver >/dev/null || die "no turnserver; run scripts/install.sh coturn"
  port="$(port coturn)"
  mkdir -p "$dir/coturn"
  [ -s "$dir/coturn.secret" ] || (umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$dir/coturn.secret")
  cd "$dir/coturn"
  TMPDIR="$dir/coturn" TURN_SECRET_FILE="$dir/coturn.secret" setsid "$root/deploy/coturn/run.sh" --listening-ip=127.0.0.1 --listening-port="$port" \
    --relay-ip=127.0.0.1 --allow-loopback-peers --allowed-peer-ip=127.0.0.0-127.255.255.255 --no-tls \
    >>"$dir/coturn.log" 2>&1 </dev/null &
  echo $! >"$dir/coturn.pid"
  await coturn 20 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port"
}

start() {
  local try
  running "$1" && return
  for try in 1 2 3; do
    if "start_$1"; then return; fi
    tail -3 "$dir/$1.log" >&2 || true
    stop "$1" KILL
    # Somebody took the port between the choice and the start. Only a server that never ran may move.
    [ -e "$dir/$1.started" ] || rm -f "$dir/$1.port"
  done
  die "$1 does not start; see $dir/$1.log"
}

# stop NAME SIGNAL: by pid, and waits until it is gone.
stop() {
  local pid end=$((SECONDS + 20))
  running "$1" || { rm -f "$dir/$1.pid"; return 0; }
  pid="$(cat "$dir/$1.pid")"
  kill "-$2" "$pid" 2>/dev/null || true
  while kill -0 "$pid" 2>/dev/null; do
    # A child of a shell that never waits stays a zombie: it is gone all the same.
    [ "$(sed -n 's/^State:\s*\(.\).*/\1/p' "/proc/$pid/status" 2>/dev/null)" = Z ] && break
    [ $SECONDS -lt $end ] || { say "$1 ($pid) does not stop; SIGKILL"; kill -KILL "$pid" 2>/dev/null || true; end=$((SECONDS + 20)); }
    sleep 0.05
  done
  rm -f "$dir/$1.pid"
}

each() {
  local run="$1"
  shift
  if [ $# = 0 ]; then
    set -- redis kafka
    [ "$run" = start ] || set -- redis kafka redis-cluster mariadb coturn
  fi
  local name
  for name in "$@"; do
    case "$name" in
      redis | kafka | redis-cluster | mariadb | coturn) ;;
      *) usage ;;
    esac
    case "$run" in
      start) start "$name"; touch "$dir/$name.started" ;;
      stop) stop "$name" TERM ;;
      kill) stop "$name" KILL ;;
      pause | resume)
        running "$name" || die "$name does not run"
        if [ "$run" = pause ]; then kill -STOP "$(cat "$dir/$name.pid")"; else kill -CONT "$(cat "$dir/$name.pid")"; fi
        ;;
      wipe)
        ! running "$name" || die "$name runs; stop it first"
        rm -rf "${dir:?}/$name/data"
        ;;
    esac
  done
}

case "$command" in
  start | stop | kill) each "$command" "$@" ;;
  pause | resume)
    [ $# -gt 0 ] || usage
    each "$command" "$@"
    ;;
  wipe)
    [ $# -gt 0 ] || usage
    each wipe "$@"
    ;;
  env)
    if [ "${1:-}" = redis-cluster ]; then
      echo "export HALLEY_TEST_REDIS=127.0.0.1:$(port redis-cluster) HALLEY_TEST_REDIS_CLUSTER=1"
      exit
    fi
    if [ "${1:-}" = mariadb ]; then
      echo "export HALLEY_TEST_MYSQL='root@tcp(127.0.0.1:$(port mariadb))/'"
      exit
    fi
    if [ "${1:-}" = coturn ]; then
      echo "export HALLEY_TEST_TURN=127.0.0.1:$(port coturn) HALLEY_TEST_TURN_SECRET=$(cat "$dir/coturn.secret")"
      exit
    fi
    echo "export HALLEY_TEST_KAFKA=127.0.0.1:$(port kafka)"
    echo "export HALLEY_TEST_REDIS=127.0.0.1:$(port redis)"
    ;;
  *) usage ;;
esac
