#!/usr/bin/env bash
# Regenerates all generated code with the pinned tools of tools/. The result is committed; CI runs this and diffs.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOWORK=off
# Versions are exact in package.json. No lock file: npm ci refuses one that lacks buf's binaries for other platforms.
(cd tools && npm install --silent --no-package-lock --no-audit --no-fund)
mkdir -p tools/bin
(cd tools && go build -o bin/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc)
export PATH="$PWD/tools/bin:$PWD/tools/node_modules/.bin:$PATH"
cd proto
buf lint
rm -rf gen
buf generate
# The SDK's types: what clients see of the contracts, and only that.
rm -rf ../web/sdk/src/gen
buf generate --template buf.gen.web.yaml --path halley/v1/client.proto
