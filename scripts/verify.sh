#!/usr/bin/env bash
# The delivery contract under every fault: `halley verify` on two of each role, with real Kafka, Redis and MariaDB that are killed, stopped
# and started again in turn. Each run ends with a table: each fault, how it is known that it had its effect, what was late, and how
# long it took until everybody had everything.
#
#   scripts/verify.sh [RUNS]       1 run unless said otherwise; each takes some three minutes
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install.sh redis kafka mariadb
for run in $(seq "${1:-1}"); do
  printf '\n=== verify, run %s of %s\n' "$run" "${1:-1}"
  HALLEY_E2E_VERIFY=1 go test -count=1 -timeout 20m -run '^TestVerify$' -v ./e2e
done
