# Needs Python 3.11 or newer, git and make; everything else comes from requirements.lock into .venv.

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/installed

# The frameworks of examples/frameworks have an environment and a lock of their own; no developer's command needs them.
FRAMEWORKS := .venv-frameworks
RECIPES    := examples/frameworks

# The first interpreter in this list that is new enough; `make PYTHON=/path/to/python3.12 …` overrides it.
ifndef PYTHON
PYTHON := $(shell for each in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$each" && break; done)
endif

# Every process would compile each module that it imports: a command of `artcafe` takes 1.0 s of processor time then instead of
# 0.5 s, the collection of the tests 47 s instead of 26 s for each worker.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup frameworks run test test-tools smoke matrix check docs site faults bench kit deploy-check package-check dist release test-wheel coverage lock clean

help:
	@echo "make setup   install ArtCafe and its tools into $(VENV)"
	@echo "make frameworks  install the frameworks of examples/frameworks and a notebook kernel into $(FRAMEWORKS), for their tests"
	@echo "make run     start everything on this machine and run the demo; Ctrl-C stops it, the data is kept"
	@echo "make test    run the tests, including lint and type checks"
	@echo "make test-tools  run those that need a browser, the frameworks or operators' tools, as far as these are here"
	@echo "make smoke   run a two-minute subset of the tests"
	@echo "make matrix  run the quick tests with each Python of 3.11 to 3.14 that is here (PYTHONS='python3.13 …' names others)"
	@echo "make check   run only lint and type checks"
	@echo "make docs    regenerate docs/errors.md, frames.md, metrics.md, promises.md, roles.md, settings.md and the TypeScript types"
	@echo "make site    build the manual into site/, with links checked, and say how to read and search it"
	@echo "make faults  run the tests that kill processes and cut the power"
	@echo "make bench   run the benchmarks"
	@echo "make lock    regenerate the lock files of the tests, image, kit, manual and recipes (LOCK=--upgrade takes the newest versions)"
	@echo "make kit     install the tools that check deploy/ into .venv-kit; make deploy-check and make package-check run everything"
	@echo "make release build and check the distributions in dist/, with a list of components; uploads nothing"
	@echo "make test-wheel, make coverage   test the built wheel; print which lines the tests run"
	@echo "make clean   remove the virtual environment and caches; a data folder is kept"

setup: $(STAMP)

# --no-build-isolation: the build backend is in the lock too, so that everything installed has a verified hash.
# --no-compile: saves a quarter of the time; Python compiles modules on import.
# A working venv is kept: recreating it in place with another Python would mix files of both.
$(STAMP): requirements.lock pyproject.toml Makefile
	@test -n "$(PYTHON)" || { echo "ArtCafe needs Python 3.11 or newer; install it, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV); the first time takes about a minute."
	@$(BIN)/python -c 'import pip, ssl' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

# The copy of the lock is the proof for the tests that this environment is the lock's.
frameworks: $(FRAMEWORKS)/requirements.lock

$(FRAMEWORKS)/requirements.lock: $(RECIPES)/requirements.lock
	@test -n "$(PYTHON)" || { echo "ArtCafe needs Python 3.11 or newer; name it: make frameworks PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "Installing the frameworks into $(FRAMEWORKS) (about 700 MB); this takes about a minute."
	@$(PYTHON) -m venv --clear $(FRAMEWORKS)
	@$(FRAMEWORKS)/bin/python -m pip install -qq --disable-pip-version-check --no-compile --require-hashes -r $(RECIPES)/requirements.lock
	@$(FRAMEWORKS)/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@cp $(RECIPES)/requirements.lock $@

run: setup
	@$(BIN)/artcafe up --demo

# Twice the timeout of pyproject.toml, for slow machines. One worker more than processors, since tests wait for other processes a
# quarter of the time; each worker starts its own platform, so at most four.
PARALLEL := -n $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1) --maxprocesses=4 --dist=worksteal
test: setup
	@node -e 'process.exit(Number(process.versions.node.split(".")[0]) < 20 ? 1 : 0)' 2>/dev/null && command -v npm >/dev/null || \
		echo "Node.js 20 or newer with npm is not here: the tests of clients/typescript are skipped (in CI they fail)." >&2
	@$(BIN)/python -m pytest -q --timeout=120 --durations=25 $(PARALLEL) $(addprefix --ignore=,$(WITH_TOOLS))

# The tests that need more than Python and Node.js: a browser, agent frameworks, the suite of MCP's authors, operators' tools and the
# built manual. Those whose tools are missing are skipped, and say what to install; in CI they fail.
WITH_TOOLS := tests/console tests/deploy tests/examples/test_browser.py tests/flows/test_frameworks.py tests/mcp/test_conformance.py \
	tests/docs/test_site.py
test-tools: setup
	@$(BIN)/python -m pytest -q --timeout=120 --durations=10 $(PARALLEL) $(WITH_TOOLS)

# Rules, wire format, services and one end-to-end story: they detect most mistakes, in two minutes on two cores.
smoke: setup
	@$(BIN)/python -m pytest -q --timeout=120 $(PARALLEL) tests/test_conventions.py tests/test_config.py tests/rules tests/wire tests/sdk \
		tests/services tests/flows/test_end_to_end.py tests/flows/test_sdk.py tests/cli/test_commands.py

PYTHONS := python3.11 python3.12 python3.13 python3.14
matrix:
	@bash tests/matrix.sh $(PYTHONS)

# tests/test_conventions.py runs the same four commands.
check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# tests/docs fails if the pages and the code disagree, and the tests of clients/typescript if its types and the documents do.
docs: setup
	@$(BIN)/python -m docs.generate
	@if command -v npm >/dev/null; then cd clients/typescript && npm run --silent generate; \
	else echo "npm is not here: src/generated of clients/typescript is unchanged." >&2; fi

# --strict: a link to a missing page or anchor fails the build. The theme's scripts and styles come with the package.
SITE := .venv-site
site: $(SITE)/installed
	@$(PYTHON) docs/site.py build/site-source
	@$(SITE)/bin/zensical build --strict --clean
	@echo "Read it:    site/index.html, where browsers do not allow the search"
	@echo "Search it:  $(PYTHON) -m http.server --bind 127.0.0.1 --directory site 8000, at http://127.0.0.1:8000"

$(SITE)/installed: docs/requirements.lock Makefile
	@$(PYTHON) -m venv --clear $(SITE)
	@$(SITE)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r docs/requirements.lock
	@touch $@

faults: setup
	@$(BIN)/python -m tests.faults

bench: setup
	@$(BIN)/python -m bench

# The tools that check the kit and make a release, apart from those of the tests: some need other versions of the same packages.
KIT := .venv-kit
kit: $(KIT)/installed
$(KIT)/installed: deploy/requirements.lock
	@$(PYTHON) -m venv --clear $(KIT)
	@$(KIT)/bin/python -m pip install -qq --disable-pip-version-check --no-compile --require-hashes -r deploy/requirements.lock
	@touch $@

# Everything of deploy/, with the image (root, Debian's buildah and debootstrap); at most 30 minutes.
deploy-check: setup kit
	@$(BIN)/python -m pytest -q --kit --timeout=1800 tests/deploy

# The distributions, and what they do in an environment that has nothing else; at most 15 minutes.
package-check: setup kit
	@$(BIN)/python -m pytest -q --kit --timeout=900 tests/deploy/test_package.py

# The same commit gives the same bytes.
dist: kit
	@$(KIT)/bin/python deploy/release/dist.py dist

# Everything but the upload: twine upload dist/*.whl dist/*.tar.gz, or the workflow of .github/.
release: check package-check dist
	@$(KIT)/bin/twine check --strict dist/*.whl dist/*.tar.gz
	@$(KIT)/bin/cyclonedx-py requirements deploy/docker/server.lock --pyproject pyproject.toml --output-reproducible --of JSON -o dist/sbom.cdx.json
	@cd dist && sha256sum *.whl *.tar.gz sbom.cdx.json >SHA256SUMS && cat SHA256SUMS

# A part of the suite on the installed wheel in place of the source: what it contains, the rules, and a server from outside.
WHEEL_TESTS := tests/rules tests/wire tests/sdk tests/flows/test_end_to_end.py tests/cli/test_commands.py
test-wheel: setup dist
	@rm -rf build/wheel && $(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --target build/wheel dist/*.whl
	@PYTHONPATH=build/wheel $(BIN)/python -c 'import artcafe; print("tests of", artcafe.__file__)'
	@PYTHONPATH=$(CURDIR)/build/wheel $(BIN)/python -m pytest -q --timeout=120 $(PARALLEL) -o pythonpath='build/wheel .' $(WHEEL_TESTS)

# COVERED=tests/rules measures a part. Servers and workers are measured too.
COVERED := tests
coverage: setup
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -q --timeout=240 $(COVERED)
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report --skip-covered --sort=cover

# Without index URLs or local folders of this machine: a lock must install anywhere. The image's has the versions of the developers'.
COMPILE := CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host $(LOCK)
lock: setup
	$(COMPILE) --extra server --extra mcp --extra otel --extra dev --output-file requirements.lock pyproject.toml
	$(COMPILE) --extra server --all-build-deps --constraint requirements.lock --output-file deploy/docker/server.lock pyproject.toml
	$(COMPILE) --output-file deploy/requirements.lock deploy/requirements.in
	$(COMPILE) --output-file docs/requirements.lock docs/requirements.in
	$(COMPILE) --output-file $(RECIPES)/requirements.lock pyproject.toml $(RECIPES)/requirements.in

clean:
	rm -rf $(VENV) $(KIT) .matrix $(SITE) $(FRAMEWORKS) site build dist src/*.egg-info clients/typescript/node_modules clients/typescript/dist clients/typescript/build tests/mcp/conformance/node_modules tests/console/oidc/node_modules .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
