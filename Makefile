# One virtual environment, made once; every target says what it does. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help lab teach test test-quick test-bounds test-seeds lint mutate release publish evidence grade-demo bench bench-grading

PYTHON ?= python3
PORT ?= 8888
ARGS ?=
COURSE ?= $(CURDIR)
NAME ?= all
URL ?=
UNIT ?= 02
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1
# nbgrader starts alembic by its name.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

help: ## show this list
	@awk -F ': .*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

lab: .venv/course ## open the course's home in JupyterLab (PORT=8888; ARGS= to jupyter lab; COURSE= another folder)
	@echo "Starting JupyterLab on port $(PORT), at the course's home. Ctrl-C twice stops it."
	@exec $(BIN)/python -m course.lab --course '$(COURSE)' --port=$(PORT) $(ARGS)

teach: .venv/course ## the same for instructors, with formgrader and Create Assignment
	@echo "Starting the instructor's JupyterLab on port $(PORT). Ctrl-C twice stops it."
	@exec $(BIN)/python -m course.lab --teach --course '$(COURSE)' --port=$(PORT) $(ARGS)

test: lint ## run everything CI runs: lint, tests, every solution notebook in two arithmetics (ARGS= to pytest)
	@echo "Running the tests and every solution notebook, two at a time ..."
	@$(BIN)/python -m pytest -n 2 --durations 10 tests solutions $(ARGS)

test-quick: .venv/dev ## what an author runs: style, and one unit's lint, checks and notebook (UNIT=02)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m course lint $(UNIT)
	@$(BIN)/python -m course build --check $(UNIT)
	@$(BIN)/python -m pytest -n 2 --arithmetic native -k '$(UNIT). or $(UNIT)_' tests/test_checks.py solutions $(ARGS)

test-bounds: ## run the tests that depend on versions with the lowest and the newest ones (OLDEST=python3.11 NEWEST=python3.13)
	@.ci/bounds $(ARGS)

test-seeds: .venv/dev ## check every right answer on 200 seeds, some by night (ARGS="02 03" for units, ARGS="--seeds 20")
	@$(BIN)/python -m tests.seeds $(ARGS)

lint: .venv/dev ## check style, units, and that what is committed is what the sources build
	@echo "Checking style and units ..."
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m course lint
	@$(BIN)/python -m course build --check

mutate: .venv/dev ## say which small mistakes earn full marks (ARGS="02", ARGS="02.kd_loss"; unchanged exercises cost nothing)
	@$(BIN)/python -m course mutate --jobs 2 $(ARGS)

release: .venv/dev ## build every unit: executed solution and the students' notebook (ARGS="02_soft_targets" for one)
	@$(BIN)/python -m course build $(ARGS)

publish: .venv/dev ## write the repository's public address everywhere (URL=https://github.com/OWNER/NAME)
	@$(BIN)/python -m course publish '$(URL)'

evidence: .venv/dev ## regenerate the experiments behind the course's claims (NAME=u02_... for one)
	@$(BIN)/python -m evidence $(NAME)

grade-demo: .venv/dev ## grade three invented students with nbgrader's own commands
	@$(BIN)/python -m grading.demo

bench-grading: .venv/dev ## time nbgrader's autograde against kdgrade (ARGS="--count 12", ARGS="--many 1000")
	@$(BIN)/python -m grading.bench $(ARGS)

bench: .venv/dev ## time the import of kdlib and every check
	@$(BIN)/python -m benchmarks

.venv/course .venv/dev: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12 ...")'
	@echo "Installing the course into .venv, once: 7 GB of disk (most of it PyTorch), a few minutes."
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$(@F)]'
	@touch .venv/course $@
