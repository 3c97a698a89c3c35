# Every target sets up what it needs in .venv by itself: `make demo` and `make test` work on a fresh clone.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# One thread a process: the tensors are small, and the suite runs one process a core.
export OMP_NUM_THREADS ?= 1

PYTHON_FLOORS ?= python3.11

.PHONY: help install demo test test-all test-floors mutants lint docs gallery bench accuracy-sweep clean

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

.venv/.release: .venv/.installed
	$(INSTALL) --editable '.[release]'
	@touch $@

.venv/.mutants: .venv/.installed
	$(INSTALL) --editable '.[mutants]'
	@touch $@

install: .venv/.installed ## make .venv with everything that development needs

demo: .venv/.installed ## train the paper's five VAEs on a branching diffusion; models and picture in results/demo
	$(BIN)/python -W ignore::DeprecationWarning tutorials/hyperbolic_vae.py --out results/demo

test: .venv/.installed ## run the test suite and all doctests
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m "not slow" $(ARGS)

test-all: .venv/.installed ## run the slow sweeps too, and measure coverage
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal --cov --cov-report term-missing:skip-covered $(ARGS)

# torch of that age compiles with -ffast-math, which takes subnormal numbers from the process: compiled tests go apart.
# Before torch 2.7 vmap cannot pass validation.
FLOORS := .venv-floors/bin/python -m pytest -W default --numprocesses 2 --dist worksteal -m "not slow" \
	--deselect tests/units/test_cache.py::test_function_transforms

.venv-floors/.installed: pyproject.toml constraints-floors.txt
	$(PYTHON_FLOORS) -m venv .venv-floors
	.venv-floors/bin/python -m pip install --quiet --disable-pip-version-check \
		--requirement constraints-floors.txt --editable '.[tutorials,testing,zuko]'
	@touch $@

test-floors: .venv-floors/.installed ## run the suite, without the matrix of inference, at the lowest versions; see docs/releasing.md
	$(FLOORS) --ignore tests/pyro/test_inference.py --ignore tests/units/test_compile.py $(ARGS)
	$(FLOORS) tests/units/test_compile.py $(ARGS)

mutants: .venv/.mutants ## change the committed code in 200 places, one at a time, and see that a test fails; results/mutants
	$(BIN)/python -m tests.mutants $(ARGS)

lint: .venv/.installed ## check style, types and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: .venv/.docs ## build the HTML documentation in docs/_build, and check its links
	@find docs/_build -name '*.html' -delete 2>/dev/null || true  # pages whose source is gone would stay
	$(BIN)/python -W ignore::DeprecationWarning -m sphinx -q -W -b html docs docs/_build
	$(BIN)/python -W ignore::DeprecationWarning docs/check.py docs/_build

gallery: .venv/.docs ## run the tutorials whose code has changed at full size, for their pages; docs/outputs
	$(BIN)/python -W ignore docs/gallery.py $(ARGS)

bench: .venv/.installed ## measure accuracy against mpmath, and speed as ratios to a Euclidean floor; results/bench
	$(BIN)/python -W ignore::DeprecationWarning benchmarks/accuracy.py --out results/bench
	$(BIN)/python -W ignore::DeprecationWarning benchmarks/speed.py --out results/bench $(ARGS)

accuracy-sweep: .venv/.installed ## 20,000 random cases of every kernel against mpmath; results/bench
	$(BIN)/python -W ignore::DeprecationWarning benchmarks/accuracy_sweep.py --out results/bench $(ARGS)

clean: ## remove what the other targets made
	rm -rf .venv .venv-floors results build dist *.egg-info docs/_build docs/tutorials .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
