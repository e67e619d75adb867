#!/usr/bin/env bash
# All modules but e2e, with Kafka and Redis inside the test processes.
set -euo pipefail
cd "$(dirname "$0")/.."
go test -race -shuffle=on $(go list work | grep -v /halley/e2e)
