# Leuko: every target makes the virtual environment that it needs, once.
#
#   make demo      draw a small smear data set, run everything on it, say where report.html is
#   make test      the tests
#   make check     format, lint, types, layers, docs, tests: what CI runs
#   make help      all of them

PYTHON ?= python3
VENV ?= .venv
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := $(VENV)/bin
DEMO ?= demo
PYTEST_ARGS ?=
# Each file of tests in one of so many processes: they take 1 to 2 GB each.
JOBS ?= 2
SHARED := -n $(JOBS) --dist loadfile --no-loadscope-reorder
# TensorFlow takes a process seconds to import, so what trains is not even collected.
QUICK := -m 'not slow and not soak' $(addprefix --ignore=,tests/training tests/workflows \
  tests/formats/test_confined.py src/leuko/training src/leuko/workflows src/leuko/__init__.py)
# What stands beside the package is held to names and arguments that exist, and to no more.
BESIDE := --config-file= --ignore-missing-imports --follow-imports silent --explicit-package-bases \
  --check-untyped-defs $(addprefix --disable-error-code=,arg-type assignment func-returns-value index \
  list-item misc operator return-value) benchmarks experiments scripts soak
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet

# "3.11", or nothing when there is no such command. An environment that is already there decides,
# so that PYTHON need not be repeated.
VERSION := $(shell { $(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' \
  || $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'; } 2>/dev/null)
CONSTRAINTS := constraints/py$(subst .,,$(VERSION)).txt

.PHONY: help demo test test-quick check format bench soak notebook lock clean python

help:
	@printf '%s\n' \
	  'make demo        draw a small smear data set, run everything, say where report.html is' \
	  'make test        run the tests' \
	  'make test-quick  the same without training and the slow ones, in a minute' \
	  'make check       format, lint, types, layers, docs and tests: what CI runs' \
	  'make format      put the code into the house format' \
	  'make bench       measure speed and memory against the strict limits' \
	  'make soak        the long reliability runs' \
	  'make notebook    run notebooks/experiment.ipynb on drawn data' \
	  'make lock        write constraints/ anew (needs Python 3.11, 3.12 and 3.13)' \
	  'make clean       remove the environment and everything that can be made again' \
	  '' \
	  'Choose another Python with: make demo PYTHON=python3.12'

python:
	@if [ -z '$(VERSION)' ]; then \
	  echo "Leuko: '$(PYTHON)' cannot be run. Install Python 3.11, 3.12 or 3.13, or name one that" \
	    "you have: make PYTHON=python3.12" >&2; exit 1; \
	fi
	@if [ ! -f '$(CONSTRAINTS)' ]; then \
	  echo "Leuko: this would run on Python $(VERSION), and Leuko is tested on 3.11, 3.12 and 3.13." \
	    "Name another: make PYTHON=python3.12 (if $(VENV) was made with Python $(VERSION)," \
	    "run 'make clean' first)." >&2; exit 1; \
	fi

$(BIN)/python: | python
	@echo "Creating $(VENV) with Python $(VERSION) ..." >&2
	@$(PYTHON) -m venv $(VENV)

# One stamp for each set of extras: a second `make` finds it and installs nothing. What builds the
# package is pinned too, hence no build isolation.
define install
@echo "Installing Leuko with its extra [$(1)], about 2.5 GB, a few minutes ..." >&2
@$(PIP) --upgrade -c $(CONSTRAINTS) pip hatchling editables
@$(PIP) -c $(CONSTRAINTS) --no-build-isolation -e '.[$(1)]'
@touch $@
endef

$(VENV)/leuko-train: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(call install,train)

$(VENV)/leuko-dev: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(call install,dev)
	@touch $(VENV)/leuko-train

demo: python $(VENV)/leuko-train
	@$(BIN)/leuko demo --out $(DEMO)

test: python $(VENV)/leuko-dev
	@$(BIN)/python -m pytest $(SHARED) $(PYTEST_ARGS)

test-quick: python $(VENV)/leuko-dev
	@$(BIN)/python -m pytest $(SHARED) $(QUICK) $(PYTEST_ARGS)

check: python $(VENV)/leuko-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	MYPYPATH=src:tests:experiments:benchmarks $(BIN)/mypy $(BESIDE)
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_docs.py
	$(BIN)/python -m pytest $(SHARED) $(PYTEST_ARGS)

format: python $(VENV)/leuko-dev
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: python $(VENV)/leuko-dev
	@for script in benchmarks/bench_*.py; do \
	  echo "== $$script" >&2; $(BIN)/python "$$script"; \
	done

soak: python $(VENV)/leuko-dev
	@$(BIN)/python -m pytest soak -m soak --timeout 0 $(PYTEST_ARGS)

notebook: python $(VENV)/leuko-dev
	@$(BIN)/python -m pytest tests/test_notebook.py $(PYTEST_ARGS)

lock:
	@$(PYTHON) scripts/lock.py

clean:
	@rm -rf $(VENV) $(DEMO) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	  .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
