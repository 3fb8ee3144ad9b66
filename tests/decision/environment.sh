#!/bin/sh
# Runs the tests of the decision model in an environment of its own, with a langchain-core that has decision models.
# Usage: tests/decision/environment.sh [FOLDER [PYTEST OPTION ...]]; FOLDER is .venv-decision when absent.
set -eu
cd "$(dirname "$0")/../.."
venv=${1:-.venv-decision}
[ $# -eq 0 ] || shift

if [ ! -e "$venv/.ready" ] || [ "$venv/.ready" -ot constraints.txt ] || [ "$venv/.ready" -ot "$0" ]; then
    echo "Setting up $venv ..."
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --upgrade "pip>=25.1"
    "$venv/bin/python" -m pip install --quiet --constraint constraints.txt --editable ".[distill,embedded,ollama,google,agents]" --group test
    # Without dependencies: langchain-core 1.8 asks for a certifi that not every package index has yet.
    "$venv/bin/python" -m pip install --quiet --no-deps langchain-core==1.8.2 langchain==1.5.0
    touch "$venv/.ready"
fi
exec "$venv/bin/python" -m pytest tests/decision "$@"
