#!/usr/bin/env bash
# golangci-lint of the version in tools/lint/go.mod, over every module.
set -euo pipefail
cd "$(dirname "$0")/.."
(cd tools/lint && GOWORK=off go build -o ../bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint)
for mod in proto kit store router comet job logic halley e2e; do
  (cd "$mod" && ../tools/bin/golangci-lint run --config ../.golangci.yml ./...)
done
