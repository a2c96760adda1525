# The commands of the repository. Each target sets up what it needs itself; `make` alone lists them.
# No target needs more than Python 3.11+ and make, unless its line says so.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# The Python that makes .venv: the first one of at least 3.11.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$python" && break; done)
BIN := .venv/bin
# Arguments handed on: `make test PYTEST=tests/unit/store`, `make test PYTEST="-k drain -x"`.
PYTEST ?=
ARGS ?=
DEMO ?= on
# How many processes run the tests; files stay together, because servers are started once per file.
JOBS ?= auto

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z0-9-]*:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: ## Make or refresh .venv; returns at once when nothing changed
	@if [ -z "$(PYTHON)" ]; then echo "setup: Python 3.11 or later is needed and was not found on the PATH" >&2; exit 1; fi
	@"$(PYTHON)" scripts/setup.py

.PHONY: run
run: setup ## Run the server until Ctrl-C, with simulated nodes; DEMO=off is the bare server, ARGS="…" its flags
	@DEMO="$(DEMO)" scripts/run.sh $(ARGS)

.PHONY: test
test: setup ## Run the tests; PYTEST="…" hands arguments on
	$(BIN)/pytest -q -n $(JOBS) --dist loadfile $(PYTEST)

# How many seeds are simulated; `make sim ARGS="--first 5000"` goes on from there, ARGS="--replay 7" runs one again.
SEEDS ?= 200
.PHONY: sim
sim: setup ## Simulate the server on virtual time, SEEDS=200 times, each with its own faults (no network, no disk)
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

# How many events one history of nodes and gangs has; CI runs shorter ones as tests.
EVENTS ?= 100000
.PHONY: churn
churn: setup ## Let nodes and gangs come, go and change on placement, EVENTS=100000 times, checked after every one
	$(BIN)/python -m tests.churn --events $(EVENTS) $(ARGS)

.PHONY: test-crash
test-crash: setup ## Kill the server under load, and with real processes, 50 and 100 times, and look what is left (minutes)
	$(BIN)/pytest -q -m crash tests/crash tests/onebox $(PYTEST)

.PHONY: test-native
test-native: setup ## Run the tests of GPUs against a driver that is played (needs gcc)
	@command -v gcc >/dev/null || { echo "test-native: gcc is needed and was not found on the PATH" >&2; exit 1; }
	$(BIN)/pytest -q -m native tests/onebox $(PYTEST)

.PHONY: test-gpu
test-gpu: setup ## Run the tests of GPUs against the real driver (needs an NVIDIA GPU that nobody else uses)
	$(BIN)/pytest -q -m gpu tests/onebox $(PYTEST)

.PHONY: test-prometheus
test-prometheus: setup ## Read signals through a real Prometheus (needs the program prometheus; Debian: apt install prometheus)
	$(BIN)/pytest -q -m prometheus tests/prometheus $(PYTEST)

.PHONY: lint
lint: setup ## Check format, lint and import contracts (seconds)
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/lint-imports --no-logo --config pyproject.toml

.PHONY: types
types: setup ## Check types
	$(BIN)/mypy

.PHONY: proto
proto: setup ## Check the contract: format, lint, breaking changes, generated code fresh (needs git)
	scripts/check_proto.sh

.PHONY: check
check: lint types proto test ## Everything a change must pass

.PHONY: generate
generate: setup ## Write the generated code anew from proto/
	$(BIN)/python scripts/generate.py

.PHONY: bench
bench: setup ## Measure: build/bench.json and a table; ARGS="--only deploy" takes a part
	$(BIN)/python -m tests.bench $(ARGS)

.PHONY: replay-table
replay-table: setup ## Compare the autoscaler with HPA, KEDA and KPA on days of public traces (an hour); ARGS="--quick" is shorter
	$(BIN)/python -m tests.bench.replay_table $(ARGS)

.PHONY: fix
fix: setup ## Format, and repair what ruff can repair
	$(BIN)/ruff check --quiet --fix .
	$(BIN)/ruff format --quiet .

.PHONY: lock
lock: ## Write the pinned requirements anew (needs uv); UPGRADE=1 moves to the newest versions
	cd requirements && for name in run dev; do uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" \
		$(if $(UPGRADE),--upgrade) "$$name.in" -o "$$name.txt"; done

.PHONY: clean
clean: ## Remove what was made, but not .venv
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
