# Needs Python 3.11 or newer, git and make; everything else comes from requirements.lock into .venv.

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/installed

# The first of these that is new enough; `make PYTHON=/path/to/python3.12 …` takes another.
ifndef PYTHON
PYTHON := $(shell for each in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$each" && break; done)
endif

.DEFAULT_GOAL := help
.PHONY: help setup run test smoke check docs faults bench lock clean

help:
	@echo "make setup   install ArtCafe and its tools into $(VENV)"
	@echo "make run     start everything on this machine and play the demo on it; Ctrl-C stops it, its data stays"
	@echo "make test    run the tests, which lint and type-check too"
	@echo "make smoke   the tests of two minutes"
	@echo "make check   only lint and type-check"
	@echo "make docs    write docs/errors.md and docs/settings.md again from the code"
	@echo "make faults  the tests that kill processes and cut the power"
	@echo "make bench   the benchmarks"
	@echo "make lock    write requirements.lock again from pyproject.toml (LOCK=--upgrade takes the newest versions)"
	@echo "make clean   remove what was installed and cached; a data folder stays"

setup: $(STAMP)

# --no-build-isolation: the build backend is in the lock too, so nothing is installed whose hash is not.
# --no-compile: saves a quarter of the time; Python compiles what it imports.
# A venv that works is kept: made again over itself by another Python, it would be half of each.
$(STAMP): requirements.lock pyproject.toml Makefile
	@test -n "$(PYTHON)" || { echo "ArtCafe needs Python 3.11 or newer; install it, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV); the first time takes about a minute."
	@$(BIN)/python -c 'import pip, ssl' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

run: setup
	@$(BIN)/artcafe up --demo

# Slow machines get twice the time that pyproject.toml gives a test. Each worker starts its own platform, so four are enough.
PARALLEL := -n auto --maxprocesses=4 --dist=worksteal
test: setup
	@$(BIN)/python -m pytest -q --timeout=120 $(PARALLEL)

# The rules, the formats, the services and one whole story: what most mistakes fail, in two minutes on two cores.
smoke: setup
	@$(BIN)/python -m pytest -q --timeout=120 $(PARALLEL) tests/test_house.py tests/test_config.py tests/rules tests/wire tests/sdk \
		tests/services tests/flows/test_road.py tests/flows/test_sdk.py tests/cli/test_commands.py

# tests/test_house.py runs the same four.
check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# tests/docs fails when the pages and the code disagree.
docs: setup
	@$(BIN)/python docs/generate.py

faults: setup
	@$(BIN)/python -m pytest tests/faults tests/tables/dynamodb/test_faults.py tests/fabric/test_cluster.py --faults

bench: setup
	@$(BIN)/python -m bench

# Without the name of any index or folder of this machine: the lock must install anywhere.
lock: setup
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --extra server --extra dev \
		--generate-hashes --strip-extras --allow-unsafe \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--output-file requirements.lock $(LOCK) pyproject.toml

clean:
	rm -rf $(VENV) build dist src/*.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
