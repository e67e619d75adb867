#!/usr/bin/env bash
# The web client's tests in a real Chromium, against a `halley all` on free ports which they start and restart themselves; with
# HALLEY_URL set, against the one there.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install.sh browser
if [ -z "${HALLEY_URL:-}" ] && [ -z "${HALLEY_BIN:-}" ]; then
  mkdir -p .cache
  go build -o .cache/halley-browser ./halley
  export HALLEY_BIN="$PWD/.cache/halley-browser"
fi
CHROMIUM="${CHROMIUM:-$(command -v chromium)}"
export CHROMIUM
cd web
# What is installed stays, unless the lock file is newer.
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  npm ci --silent --no-audit --no-fund
fi
# The quick ones first: types, whether the committed dist is what the sources build to, what needs no browser.
npm run --silent check
npm run --silent check:dist
npm run --silent test
npm run --silent test:browser
