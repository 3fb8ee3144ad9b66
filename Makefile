# Everything sets itself up: a virtual environment in .venv with the pinned versions of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# `decision` makes an environment of its own: LangChain's decision models need a newer core than the pinned one.
.PHONY: help demo decision test lint format lock clean

help:  ## What can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(READY): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (about 350 MB of packages, 2 minutes) ..."
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all]" --group lint --group test
	@touch $(READY)

demo: $(READY)  ## Distil a prompt with a real local model and classify with it
	$(BIN)/pld demo

decision: $(READY)  ## Test the decision model in an environment with langchain-core 1.8
	PYTHON=$(PYTHON) tests/decision/environment.sh

test: $(READY)  ## Run the whole test suite
	$(BIN)/python -m pytest

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
