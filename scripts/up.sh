#!/usr/bin/env bash
# A Halley cluster to play with on this machine: real Kafka, Redis and MariaDB, two routers, logics, comets and jobs, each a process
# with a log of its own in .cluster/logs. Repeatable: starts what does not run. scripts/down.sh stops it. HALLEY_STORE_DRIVER and
# HALLEY_STORE_DSN name another database.
source "$(dirname "$0")/cluster.sh"

binary="$PWD/bin/halley"
[ -x "$binary" ] || die "no bin/halley; run make build"
scripts/install.sh redis kafka $([ -n "${HALLEY_STORE_DSN:-}" ] || echo mariadb)
mkdir -p "$home/logs" "$home/data"

# Secrets as `halley all` keeps them, so that `halley push` and `halley token` find them with --data-dir.
umask 077
for f in token-key api-key cluster-secret; do
  [ -s "$home/data/$f" ] && continue
  secret="$(head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n')"
  [ $f = api-key ] && secret="hk_local_$secret"
  printf '%s\n' "$secret" >"$home/data/$f"
done
umask 022

say "Kafka, Redis and MariaDB …"
scripts/servers.sh start "$home/servers"
eval "$(scripts/servers.sh env "$home/servers")"

export HALLEY_KAFKA_BROKERS="$HALLEY_TEST_KAFKA" HALLEY_REDIS_ADDRS="$HALLEY_TEST_REDIS"
unset HALLEY_TEST_KAFKA HALLEY_TEST_REDIS
if [ -z "${HALLEY_STORE_DSN:-}" ]; then
  scripts/servers.sh start "$home/servers" mariadb
  eval "$(scripts/servers.sh env "$home/servers" mariadb)"
  mariadb --no-defaults -h 127.0.0.1 -P "$(sed 's/.*:\([0-9]*\).*/\1/' <<<"$HALLEY_TEST_MYSQL")" -u root -e 'CREATE DATABASE IF NOT EXISTS halley'
  export HALLEY_STORE_DRIVER=mysql HALLEY_STORE_DSN="${HALLEY_TEST_MYSQL}halley"
  unset HALLEY_TEST_MYSQL
fi
export HALLEY_CLUSTER_SECRET_FILE="$home/data/cluster-secret"
export HALLEY_ROUTER_TARGET="127.0.0.1:$(port router grpc 1),127.0.0.1:$(port router grpc 2)"
export HALLEY_LOGIC_TARGET="127.0.0.1:$(port logic grpc 1),127.0.0.1:$(port logic grpc 2)"

# ready PORT: does /readyz there answer 200?
ready() {
  timeout 2 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1" && printf "GET /readyz HTTP/1.0\r\n\r\n" >&3 && head -1 <&3 | grep -q " 200 "' - "$1" 2>/dev/null
}

# start ROLE NUMBER [VARIABLE=VALUE...]
start() {
  local role="$1" name="$1$2" number="$2" pid end
  shift 2
  running "$name" && return
  mkdir -p "$home/$name"
  (
    cd "$home/$name"
    export "HALLEY_${role^^}_PRIVATE_ADDR=127.0.0.1:$(port "$role" private "$number")" "$@"
    setsid "$binary" "$role" >>"$home/logs/$name.log" 2>&1 </dev/null &
    echo $! >"$home/$name/pid"
  )
  pid="$(cat "$home/$name/pid")"
  end=$((SECONDS + 30))
  until ready "$(port "$role" private "$number")"; do
    if gone "$pid"; then
      tail -3 "$home/logs/$name.log" >&2
      die "$name ended at its start; see $home/logs/$name.log"
    fi
    [ $SECONDS -lt $end ] || die "$name is not ready after 30 s; see $home/logs/$name.log"
    sleep 0.1
  done
  say "  $name"
}

api_hash="$(tr -d '\n' <"$home/data/api-key" | sha256sum | cut -d' ' -f1)"
for i in 1 2; do
  start router $i HALLEY_ROUTER_GRPC_ADDR="127.0.0.1:$(port router grpc $i)"
done
for i in 1 2; do
  start logic $i HALLEY_LOGIC_HTTP_ADDR="127.0.0.1:$(port logic http $i)" HALLEY_LOGIC_GRPC_ADDR="127.0.0.1:$(port logic grpc $i)" \
    HALLEY_LOGIC_TOKEN_KEYS="local:HS256:@$home/data/token-key" HALLEY_LOGIC_HTTP_API_KEYS="local:$api_hash:admin:*" HALLEY_DEMO="${HALLEY_DEMO:-open}"
done
for i in 1 2; do
  start comet $i HALLEY_COMET_NAME="comet$i" HALLEY_COMET_TCP_ADDR="127.0.0.1:$(port comet tcp $i)" \
    HALLEY_COMET_WS_ADDR="127.0.0.1:$(port comet ws $i)" HALLEY_COMET_GRPC_ADDR="127.0.0.1:$(port comet grpc $i)" \
    HALLEY_COMET_ORIGINS="${HALLEY_COMET_ORIGINS:-*}"
done
for i in 1 2; do start job $i; done

cat <<TEXT

The cluster runs.

  page, HTTP API   http://127.0.0.1:$(port logic http 1)   http://127.0.0.1:$(port logic http 2)
  clients, WS      ws://127.0.0.1:$(port comet ws 1)/sub   ws://127.0.0.1:$(port comet ws 2)/sub
  clients, TCP     127.0.0.1:$(port comet tcp 1)   127.0.0.1:$(port comet tcp 2)
  Kafka, Redis     $HALLEY_KAFKA_BROKERS   $HALLEY_REDIS_ADDRS
  database         $(sed 's/^[^@]*@//' <<<"$HALLEY_STORE_DSN")
  logs             .cluster/logs/
  keys             .cluster/data/

  bin/halley listen --data-dir .cluster/data --uid ann --comet ws://127.0.0.1:$(port comet ws 2)/sub
  bin/halley push --data-dir .cluster/data --uid ann --body hello

  kill a node       kill -KILL \$(cat .cluster/comet1/pid)
  start it again    make up
  stop everything   make down
TEXT
