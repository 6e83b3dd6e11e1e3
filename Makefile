# One virtual environment, made once; every target says what it does. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help lab test lint release evidence grade-demo bench

PYTHON ?= python3
PORT ?= 8888
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1

.venv/course .venv/dev: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing the course ($(@F)) into .venv ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(@F)]'
	@touch $@
