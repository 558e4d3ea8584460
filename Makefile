# What a person types. On a fresh machine Python 3.11 and make are enough: every target makes .venv and installs
# what it needs, once; a later call is fast until pyproject.toml changes.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
DEMO ?= demo_output
PEERS ?= $(VENV)/peers
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: demo test test-all test-peers test-slurm test-clouds lint docs notebooks benchmark format clean help

demo: $(VENV)/installed-view ## make a synthetic scan, analyse it, write a report (needs no data)
	$(BIN)/stemstore demo $(DEMO)

test: lint ## linters, types, import contracts, schemas and the quick tests
	$(PYTEST) -n $(JOBS) -m "not slow"

test-all: lint docs ## everything in test, and the slow tests, the notebooks and the documentation
	$(PYTEST) -n $(JOBS)
	$(PYTEST) --nbmake notebooks

test-peers: $(VENV)/installed-test ## let stempy, LiberTEM and py4DSTEM, each in an environment of its own, open what is exported for them
	STEMSTORE_TEST_PEERS=$(abspath $(PEERS)) $(PYTEST) tests/peers

test-slurm: $(VENV)/installed-test ## submit conversions to a Slurm that is started for it (tests/slurm/setup.sh --install gets one)
	-$(INSTALL) "dask-jobqueue>=0.9"
	tests/slurm/setup.sh $(PYTEST) tests/slurm

# Azurite 3.35 is the last that runs on Node.js before 22; without npm its tests are skipped
test-clouds: $(VENV)/installed-test ## stores on Google Cloud Storage and Azure, played by emulators from PyPI and npm
	$(INSTALL) -e ".[cloud]" "gcp-storage-emulator>=2026.7"
	-npm install --silent --no-audit --no-fund --prefix $(VENV)/azurite azurite@3.35.0
	STEMSTORE_TEST_CLOUDS=1 STEMSTORE_TEST_AZURITE=$(abspath $(VENV)/azurite/node_modules/.bin/azurite-blob) \
		$(PYTEST) -n $(JOBS) tests/clouds

lint: $(VENV)/installed-test ## style, types, import contracts, JSON Schemas up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m stemstore_schemas.export $(VENV)/schemas >/dev/null
	diff -r $(VENV)/schemas schemas/json

docs: $(VENV)/installed-test ## build the documentation into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -c docs -d docs/_build/doctrees . docs/_build/html
	@echo "documentation: $(CURDIR)/docs/_build/html/docs/index.html"

notebooks: $(VENV)/installed-test ## run the notebooks
	$(PYTEST) --nbmake notebooks

benchmark: $(VENV)/installed-test ## speed and memory against named baselines in the same run (5 GB of scratch data)
	$(BIN)/python -m benchmarks.kernels
	$(BIN)/python -m benchmarks.pipeline
	$(BIN)/python -m benchmarks.operations
	$(BIN)/python -m benchmarks.bragg
	$(BIN)/python -m benchmarks.strain
	$(BIN)/python -m benchmarks.readers
	$(BIN)/python -m benchmarks.remote
	$(BIN)/python -m benchmarks.rechunk
	$(BIN)/python -m benchmarks.writers

format: $(VENV)/installed-test ## format the code, mend what the linter can mend, write the JSON Schemas
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .
	$(BIN)/python -m stemstore_schemas.export schemas/json

clean: ## remove what was built, but not .venv
	rm -rf build dist docs/_build $(DEMO) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "stemstore needs Python 3.11 or newer; name one with make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed-view: pyproject.toml | $(BIN)/python
	$(INSTALL) -e ".[view]"
	@touch $@

$(VENV)/installed-test: pyproject.toml | $(BIN)/python
	$(INSTALL) -e ".[test]"
	@touch $@ $(VENV)/installed-view
