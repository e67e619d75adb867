#!/usr/bin/env bash
# What must hold before any test is worth running.
set -euo pipefail
cd "$(dirname "$0")/.."

unformatted=$(gofmt -l $(git ls-files '*.go' ':!proto/gen'))
if [ -n "$unformatted" ]; then
  echo "not formatted (make fmt):" >&2
  echo "$unformatted" >&2
  exit 1
fi

go vet work

# Each module must build without the workspace, as whoever requires it will build it.
for mod in proto kit store router comet job logic web halley e2e; do
  (cd "$mod" && GOWORK=off go build ./... && GOWORK=off go vet ./... && GOWORK=off go mod tidy -diff)
done

before=$(git status --porcelain proto/gen web/sdk/src/gen 2>/dev/null; git diff -- proto/gen web/sdk/src/gen | sha256sum)
scripts/gen.sh
after=$(git status --porcelain proto/gen web/sdk/src/gen 2>/dev/null; git diff -- proto/gen web/sdk/src/gen | sha256sum)
if [ "$before" != "$after" ]; then
  echo "generated code is stale: run make gen and commit it" >&2
  git diff --stat -- proto/gen web/sdk/src/gen >&2
  exit 1
fi
