# Everything sets itself up: a virtual environment in .venv with the pinned versions of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ROOM ?= tests
# A process a core, four at most; tests/conftest.py says what stays together.
PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist loadgroup

# `decision` makes an environment of its own: LangChain's decision models need a newer core than the pinned one.
.PHONY: help demo decision test quick lint format lock clean

help:  ## What can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(READY): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (about 1.1 GB on disk, 2 minutes) ..."
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all]" --group lint --group test
	@touch $(READY)

demo: $(READY)  ## Distil a prompt with a real local model and classify with it
	$(BIN)/pld demo

decision: $(READY)  ## Test the decision model in an environment with langchain-core 1.8
	PYTHON=$(PYTHON) tests/decision/environment.sh

test: $(READY)  ## Run the test suite; ROOM=tests/guardrail: one room of it
	$(BIN)/python -m pytest $(PARALLEL) $(ROOM)

quick: $(READY)  ## Run the tests that need neither a model nor patience; takes ROOM as well
	$(BIN)/python -m pytest $(PARALLEL) -m "not model and not slow" $(ROOM)

lint: $(READY)  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(READY)  ## Write the versions of the environment into constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable --exclude langchain-pld > constraints.txt

clean:  ## Remove the environment and caches
	rm -rf $(VENV) .venv-decision .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
