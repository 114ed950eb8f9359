#!/usr/bin/env bash
# Run the quick tests with each Python that is named and found, in a virtual environment of its own: tests/matrix.sh python3.12 python3.13
# `make matrix` calls it. It names those that it did not find, and fails if the tests of another one fail, or none was found.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
quick=(tests/test_config.py tests/rules tests/wire tests/sdk tests/flows/test_end_to_end.py)

run() {
	local venv=.matrix/${1##*/}
	"$1" -m venv --clear "$venv" || return
	# Without atheris, which has no wheel for Python 3.14 and only runs in the fault tests.
	awk '/^[^ #]/ { skipped = /^atheris==/ } !skipped' requirements.lock > "$venv/requirements.lock"
	"$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-compile --require-hashes -r "$venv/requirements.lock" || return
	"$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e . || return
	"$venv/bin/python" -m pytest -q --timeout=120 "${quick[@]}"
}

failed=0 ran=0
results=()
for python in "$@"; do
	if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
		results+=("$python: not found, not tested")
		continue
	fi
	ran=1
	if run "$python"; then
		results+=("$python: passed ($("$python" -c 'import platform; print(platform.python_version())'))")
	else
		results+=("$python: FAILED")
		failed=1
	fi
done
printf '%s\n' "${results[@]}"
[ "$failed" = 0 ] && [ "$ran" = 1 ]
