# `make demo` and `make test` need git, make and Python >= 3.10; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One thread per process: two on a busy machine are slower than one.
export OMP_NUM_THREADS ?= 1

.PHONY: help install demo lint types test bench wheel docs notebooks notebooks-check clean

help:
	@echo "make demo    train a small encoder on synthetic skeletons and show what it learnt"
	@echo "make test    lint, types and tests"
	@echo "make bench   speed and memory beside reference-shaped code, one table; about a quarter of an hour"
	@echo "make wheel   build the wheel and try it in an empty environment"
	@echo "make docs    build the documentation site into build/site; a broken link or reference fails"
	@echo "make notebooks   run notebooks/*.py and write the notebooks beside them (make notebooks-check: only compare)"
	@echo "make clean   remove .venv and everything built"

$(VENV)/.base: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	@# The pinned torch first: resolving an open range would fetch CUDA packages.
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.test: $(VENV)/.base
	$(BIN)/pip install --quiet -c constraints.txt -e '.[test]'
	@touch $@

$(VENV)/.docs: $(VENV)/.base
	$(BIN)/pip install --quiet -c constraints.txt -e '.[docs]'
	@touch $@

install: $(VENV)/.base

demo: $(VENV)/.base
	$(BIN)/prosl demo

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

test: lint types
	$(BIN)/pytest -n 2 -q

bench: $(VENV)/.test
	$(BIN)/python benchmarks/bench.py
	$(BIN)/python benchmarks/bench.py --readme

wheel: $(VENV)/.test
	.ci/wheel

docs: export NO_MKDOCS_2_WARNING = 1
docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

notebooks: $(VENV)/.docs
	$(BIN)/python notebooks/build.py

notebooks-check: $(VENV)/.docs
	$(BIN)/python notebooks/build.py --check

clean:
	rm -rf $(VENV) build dist src/*.egg-info demo
