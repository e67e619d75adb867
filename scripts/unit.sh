#!/usr/bin/env bash
# All modules but e2e, with Kafka and Redis inside the test processes.
set -euo pipefail
cd "$(dirname "$0")/.."
# Three packages at a time, and four tests of each that allow it: most of them wait more than they work.
go test -race -shuffle=on -p 3 -parallel 4 $(go list work | grep -v /halley/e2e)
