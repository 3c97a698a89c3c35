# Every target sets up what it needs in .venv by itself: `make demo` and `make test` work on a fresh clone.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# One thread a process: the tensors are small, and the suite runs one process a core.
export OMP_NUM_THREADS ?= 1

.PHONY: help install demo test test-all mutants lint docs bench clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

# torch first and by its exact pin: as a dependency of something else pip takes the newest build, gigabytes of it.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) "$$(grep '^torch==' constraints.txt)"
	$(INSTALL) --editable '.[dev]'
	@touch $@

.venv/.docs: .venv/.installed
	$(INSTALL) --editable '.[docs]'
	@touch $@

.venv/.mutants: .venv/.installed
	$(INSTALL) --editable '.[mutants]'
	@touch $@

install: .venv/.installed ## make .venv with everything that development needs

demo: .venv/.installed ## train the paper's five VAEs on a branching diffusion; table and picture in results/demo
	$(BIN)/python -W ignore::DeprecationWarning tutorials/hyperbolic_vae.py --out results/demo

test: .venv/.installed ## run the test suite and all doctests
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m "not slow" $(ARGS)

test-all: .venv/.installed ## run the slow sweeps too, and measure coverage
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal --cov --cov-report term-missing:skip-covered $(ARGS)

mutants: .venv/.mutants ## change the committed code in 200 places, one at a time, and see that a test fails; results/mutants
	$(BIN)/python -m tests.mutants $(ARGS)

lint: .venv/.installed ## check style, types and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: .venv/.docs ## build the HTML documentation in docs/_build
	$(BIN)/sphinx-build -q -W -b html docs docs/_build

bench: .venv/.installed ## measure accuracy against mpmath, and speed as ratios to a Euclidean floor; results/bench
	$(BIN)/python -W ignore::DeprecationWarning benchmarks/accuracy.py --out results/bench
	$(BIN)/python -W ignore::DeprecationWarning benchmarks/speed.py --out results/bench $(ARGS)

clean: ## remove what the other targets made
	rm -rf .venv results build dist *.egg-info docs/_build docs/tutorials .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
