# Tocsin. `make demo` shows it at work, `make test` tests it; both set up all they need in .venv.
# Needed: Python 3.11 or newer, and make. Nothing is installed outside this folder.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --require-hashes

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-headless test check soak bench format lock clean

help: ## List what can be made
	@grep -hE '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: .venv/ready ## Install Tocsin and its pinned dependencies into .venv

demo: .venv/ready ## Play a hospital attack through real syslog and serve the console on 127.0.0.1:8080
	@$(BIN)/tocsin demo

demo-headless: .venv/ready ## The same without a browser: prints the alerts, exit 0 only if the attack was found
	@$(BIN)/tocsin demo --headless

test: check ## Lint, types, import contracts and all tests (skips what needs a peer that is not here)
	$(BIN)/pytest -m "not soak" -n auto --dist loadfile

check: .venv/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: .venv/ready-dev ## Long fault and load runs
	$(BIN)/pytest -m soak --timeout 0

bench: .venv/ready ## Measure against RSigma and write benchmarks/REPORT.md (an hour; needs the shared data, cargo for RSigma)
	$(BIN)/python -m benchmarks.run

format: .venv/ready-dev ## Format the code and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## Pin the dependencies anew (needs uv): hashes, no index addresses
	uv pip compile --upgrade --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --extra build pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --extra build --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

clean: ## Remove what was set up and built
	rm -rf .venv .demo .build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The stamps are written last: a set-up that was interrupted starts again from nothing.
.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Tocsin needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "Setting up .venv: about a minute, some 700 MB, once."
	@$(PYTHON) -m venv --clear .venv || \
	  { echo "$(PYTHON) cannot make a virtual environment (Debian: apt install python3-venv)" >&2; exit 2; }
	@$(PIP) --no-deps -r requirements.lock
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv/ready-dev: .venv/ready requirements-dev.lock
	@$(PIP) --quiet --no-deps -r requirements-dev.lock
	@touch $@
