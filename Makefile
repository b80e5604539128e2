# Every command of the house. `make run` and `make test` need Python 3.11 or newer and make, nothing else.
VENV := .venv
BIN := $(VENV)/bin
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help run test check lint bench base openapi migration clean
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.runtime ## start the server and a worker, load real data, train, forecast; Ctrl-C ends it
	@$(BIN)/python -m app demo $(ARGS)

test: $(VENV)/.dev ## run the tests (SQLite; PostgreSQL when TEST_DATABASE_URL names a server)
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 $(ARGS)

check: lint test ## format, lint, types, import rules, tests

lint: $(VENV)/.dev ## format, lint, types and import rules alone
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports

bench: $(VENV)/.dev ## what the claims rest on; M4=folder SCORER=score.py add the accuracy run (see bench/README.md)
	@$(BIN)/python bench/concurrency.py
	@$(BIN)/python bench/chaos.py
	@$(BIN)/python bench/contract.py
	@$(BIN)/python bench/import_time.py
	@if [ -n "$(M4)" ]; then $(BIN)/python bench/m4.py --data "$(M4)" $(if $(SCORER),--scorer "$(SCORER)"); fi

base: $(VENV)/.runtime ## make the shipped base from nothing into models/base: an hour on one core, 4 GB; ARGS='--device cuda --hidden 384'
	@$(BIN)/python -m models.recipe $(ARGS)

openapi: $(VENV)/.dev ## write openapi.json anew after a change of the interface
	@$(BIN)/python -m app openapi > openapi.json.new && mv openapi.json.new openapi.json

migration: $(VENV)/.dev ## draft a migration from the tables: make migration m="add a column"
	@$(BIN)/python -m migrations "$(m)"
	@$(BIN)/ruff format -q migrations/versions && $(BIN)/ruff check -q --fix migrations/versions

clean: ## remove the environment and every cache; data stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---------------------------------------------------------------- the environment; each step once, then a stamp

# PYTHON=… names an interpreter; else the first good one, and one so new that torch may lack a wheel for it only at last.
# An environment that is there and works is kept.
$(VENV)/.made:
	@good() { "$$1" -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, $$2))" >/dev/null 2>&1; }; \
	if good $(BIN)/python 99; then touch $@; exit 0; fi; \
	found=; for below in 15 99; do \
	  for name in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14 python); do \
	    if [ -z "$$found" ] && good "$$name" $$below; then found=$$name; fi; \
	  done; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "Gatecast needs Python 3.11 or newer and found none: install it, or name it, as in  make run PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	if ! "$$found" -c "import ensurepip, venv" >/dev/null 2>&1; then \
	  echo "$$found has no venv module; on Debian and Ubuntu:  sudo apt install python3-venv  (or python3.12-venv and so on)" >&2; exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv --clear $(VENV) && touch $@

# On Linux, PyPI's torch brings gigabytes of CUDA. Without an NVIDIA driver the CPU wheel is looked for first, by itself and with
# retries off: an index that cannot be reached costs seconds, and the next step goes on as if it had never been asked.
$(VENV)/.torch: pyproject.toml | $(VENV)/.made
	@if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1; then \
	  echo "Installing PyTorch for the CPU"; \
	  torch=$$($(BIN)/python -c "import tomllib; print(next(d for d in tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'] if d.startswith('torch')))"); \
	  $(BIN)/python -m pip install -q --no-deps --retries 0 --timeout 10 --extra-index-url $(TORCH_INDEX) "$$torch" || true; \
	fi
	@touch $@

$(VENV)/.runtime: $(VENV)/.torch
	@echo "Installing Gatecast (once; a minute or two)"
	@$(BIN)/python -m pip install -q -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo "Installing what the tests need (once)"
	@$(BIN)/python -m pip install -q -e '.[dev]'
	@touch $@
