#!/usr/bin/env bash
# All tests, with real Redis, Kafka, MariaDB and Chromium that this script installs and starts itself.
#
#   scripts/test.sh                      check, unit, real servers, e2e, browser
#   scripts/test.sh PART...              only those: check unit real e2e browser
#
# With HALLEY_TEST_AGAIN=1 a step that fails is done once more, and named at the end: half an hour on a machine that others use, too, isn't lost by
# one moment of it, and what passed only then is told.
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -gt 0 ] || set -- check unit real e2e browser

scripts/install.sh

dir=$(mktemp -d "${TMPDIR:-/tmp}/halley-test.XXXXXX")
cleanup() {
  scripts/servers.sh stop "$dir/servers" >/dev/null 2>&1 || true
  if [ "${KEEP_LOGS:-}" ]; then echo "logs are in $dir" >&2; else rm -rf "$dir"; fi
}
trap cleanup EXIT

try() {
  "$@" && return
  [ "${HALLEY_TEST_AGAIN:-}" ] || return 1
  echo "passed at the second time only: $*" >>"$dir/again"
  step "FAILED, once more: $*"
  "$@"
}

step() { printf '\n=== %s (%ss)\n' "$*" "$SECONDS"; }

servers() {
  scripts/servers.sh start "$dir/servers"
  eval "$(scripts/servers.sh env "$dir/servers")"
  export HALLEY_TEST_KAFKA HALLEY_TEST_REDIS
}

for part in "$@"; do
  case "$part" in
    check)
      step "check: format, vet, modules alone, generated files"
      scripts/check.sh
      scripts/lint.sh
      ;;
    unit)
      step "unit: embedded Kafka and Redis"
      try scripts/unit.sh
      ;;
    real)
      step "the packages that own Kafka, Redis and SQL, on real servers"
      servers
      scripts/servers.sh start "$dir/servers" mariadb
      eval "$(scripts/servers.sh env "$dir/servers" mariadb)"
      # Beside it, for they wait more than they work: presence on a Redis Cluster, which refuses a script or command whose
      # keys lie in several slots.
      scripts/servers.sh start "$dir/servers" redis-cluster
      (
        eval "$(scripts/servers.sh env "$dir/servers" redis-cluster)"
        try go test -shuffle=on -count=1 ./router/...
      ) >"$dir/redis-cluster.out" 2>&1 &
      cluster=$!
      # Without the race detector, which watched the same tests on the servers in the process. The longest first.
      try go test -shuffle=on -count=1 -p 3 -parallel 4 ./job/... ./router/... ./kit/kafkaconn/... ./store/... ./logic/... && failed=0 || failed=$?
      step "the same for presence on a Redis Cluster"
      wait $cluster || failed=$?
      cat "$dir/redis-cluster.out"
      step "the faults of TURN with coturn"
      HALLEY_TEST_TURNSERVER="$(command -v turnserver)" try go test -count=1 -run Coturn ./halley/internal/doctor || failed=$?
      [ "$failed" = 0 ] || exit "$failed"
      ;;
    e2e)
      # It starts servers of its own, which it kills.
      step "e2e: the real binary, two of each role, faults"
      try go test -count=1 -timeout 20m ./e2e/...
      # Once more with the race detector in every process: the stretches of the faults in which most happens at once. Those that only
      # wait for an answer, and the end in order, add time and no races.
      step "e2e: the cluster with the race detector, killed, stopped, cut off, without Redis, rolled"
      HALLEY_E2E_RACE=1 try go test -count=1 -timeout 10m \
        -run '^TestFaults$/^(router killed|job killed|logic killed|comet killed|comet stopped.*|comet cut off.*|redis away.*|comets rolled)$' ./e2e
      ;;
    browser)
      step "browser: Chromium against halley all"
      try scripts/browser.sh
      ;;
    *)
      echo "unknown part $part" >&2
      exit 2
      ;;
  esac
done
step "all passed"
[ ! -e "$dir/again" ] || cat "$dir/again"
