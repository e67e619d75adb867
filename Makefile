# Targets for people and for CI. Scripts that take more than a line are in scripts/.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export CGO_ENABLED ?= 1

.PHONY: help
help: ## This list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

.PHONY: build
build: ## Build the halley command into bin/
	CGO_ENABLED=0 go build -trimpath -o bin/halley ./halley

.PHONY: run
run: build ## The whole product in one process: open the URL that it prints
	bin/halley all

.PHONY: gen
gen: ## Regenerate generated code with pinned tools
	scripts/gen.sh

.PHONY: web
web: ## Build the web app and the SDK into web/dist
	cd web && npm ci --no-audit --no-fund && npm run build

.PHONY: fmt
fmt: ## Format Go code
	gofmt -w $$(git ls-files '*.go' ':!proto/gen')

.PHONY: lint
lint: ## golangci-lint (pinned; built on first use) over all modules
	scripts/lint.sh

.PHONY: check
check: ## What must hold before any test: format, vet, modules alone, generated files fresh
	scripts/check.sh

.PHONY: unit
unit: ## All modules with embedded Kafka and Redis, race detector on
	scripts/unit.sh

.PHONY: test
test: ## Everything: check, unit, real Kafka, Redis and MariaDB, e2e with kills, browser; installs what it needs
	scripts/test.sh

.PHONY: e2e
e2e: ## Only the black-box tests: the real binary on real servers
	scripts/test.sh e2e

.PHONY: verify
verify: ## The delivery contract under every fault, on real servers; RUNS=3 for three runs; minutes
	scripts/verify.sh $${RUNS:-1}

.PHONY: browser
browser: ## Only the browser tests
	scripts/test.sh browser

.PHONY: calls
calls: build ## Calls in real browsers: direct, relayed, without UDP, over a cluster that is killed; minutes
	scripts/calls.sh $(FILES)

.PHONY: fuzz
fuzz: ## Every fuzz target for FUZZTIME (default 30s) each
	scripts/fuzz.sh

.PHONY: bench
bench: build ## The tables of docs/performance.md, on real servers; minutes
	bench/run.sh

.PHONY: bench-smoke
bench-smoke: build ## Every benchmark once, small; seconds
	bench/run.sh --smoke

.PHONY: up
up: build ## Two of each role on real Kafka, Redis and MariaDB on this machine
	scripts/up.sh

.PHONY: down
down: ## Stop what `make up` started
	scripts/down.sh
