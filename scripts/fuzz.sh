#!/usr/bin/env bash
# Runs every fuzz target for FUZZTIME (default 30s).
set -euo pipefail
cd "$(dirname "$0")/.."
git grep -l --extended-regexp '^func Fuzz' -- '*_test.go' | while read -r file; do
  dir=$(dirname "$file")
  for target in $(grep -oE '^func Fuzz[A-Za-z0-9_]+' "$file" | sed 's/^func //'); do
    echo "== $dir $target"
    go test "./$dir" -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-30s}"
  done
done
