# Everything goes into .venv; nothing but make and Python 3.11 to 3.13 is assumed.
# `make PYTHON=/path/to/python3` chooses the interpreter by hand.

.DEFAULT_GOAL := help
.PHONY: help setup backtest live test slow check format protos peers bench ui clean

export PIP_ROOT_USER_ACTION = ignore
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export MLFLOW_DISABLE_TELEMETRY = true

BIN := .venv/bin
READY := .venv/.ready
SUITS = import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3; do \
	if $$p -c "$(SUITS)" >/dev/null 2>&1; then command -v $$p; break; fi; done)

help:  ## list the commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: $(READY)  ## create .venv and install into it; nothing to do when it is up to date

# A broken or half-made environment has no working pip: it is laid anew. The stamp comes last.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No suitable Python. Tandem needs Python 3.11, 3.12 or 3.13 with its venv module" \
		"(Debian: apt-get install python3-venv), or say make PYTHON=/path/to/python3."; exit 1; } >&2
	@"$(PYTHON)" -c "$(SUITS)" || { echo "$(PYTHON) is not Python 3.11 to 3.13 with the venv module."; exit 1; } >&2
	@echo "Setting up .venv with $$("$(PYTHON)" --version) (once; a minute or two)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

backtest: setup  ## momentum on the sample of real daily equities
	@$(BIN)/tandem mode=backtest strategy=momentum data=equities

live: setup  ## a live session on this machine for a minute: servers, paper venue, engine, its replay
	@$(BIN)/tandem mode=demo

test: setup  ## the fast suite, but for the house rules, which are in check
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow" --ignore tests/test_tidy.py

slow: setup  ## what takes longer: notebooks, peers, full matrices, more examples
	$(BIN)/pytest -n 2 --dist worksteal -m slow --hypothesis-profile=thorough

check: setup  ## ruff, mypy, the floors, the house rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/test_tidy.py

format: setup  ## lay the source out as `make check` wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: setup  ## Python of the wire, from protos
	$(BIN)/python protos/generate.py

peers: setup  ## one environment per peer under bench/.venvs
	$(BIN)/python -m bench.peers

bench: setup  ## every case beside its limit and its peers; writes bench/RESULTS.md
	$(BIN)/python -m bench all

ui: setup  ## the tracked runs in the browser
	$(BIN)/tandem mode=ui

clean:  ## remove the environment and what tools left behind
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './bench/.venvs/*' -prune -exec rm -rf {} +
