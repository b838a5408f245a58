# make demo   install, pretrain on the bundled tiles, show what happened
# make test   install, run the tests
# make check  style, types, the documentation built strictly, the wheel installed and used
# make docs   build the documentation into site/
# make matrix the tests on Python 3.10 and 3.12, and on the lowest versions that we allow
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# Two processes of one thread each; a file stays in one process, its fixtures are made once.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile

.PHONY: install demo test test-slow check lint docs wheel-test matrix clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "error: $$($(PYTHON) --version) is too old: give a Python of 3.10 or later, make PYTHON=python3.11"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "error: $(PYTHON) cannot make virtual environments: on Debian or Ubuntu, apt install python3-venv"; exit 2; }
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@$(PY) -c 'import cv2' || \
	  { echo "error: OpenCV misses a system library (see above): on Debian or Ubuntu, apt install libgl1 libglib2.0-0; on Fedora, dnf install mesa-libGL glib2"; exit 2; }
	@touch $@

demo: install
	$(PY) tools/demo.py

test: install
	$(PYTEST) tests

test-slow: install
	$(PYTEST) tests -m 'slow or not slow'

check: lint docs wheel-test

lint: install $(VENV)/checking
	$(PY) -m ruff check .
	$(PY) -m mypy

docs: install $(VENV)/checking
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

$(VENV)/checking: pyproject.toml | $(VENV)/installed
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# FULL=1: with its own dependencies, as pip resolves them, in place of those of $(VENV).
wheel-test: install
	.ci/wheel_test $(PY) $(if $(FULL),--full)

# One environment after the other, each removed when its tests have passed.
matrix: install
	$(PY) -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
	$(call suite,3.10,highest)
	$(call suite,3.12,highest)
	$(call suite,3.10,lowest-direct)

define suite
	$(PY) -m uv venv --quiet --clear --python $(1) $(VENV)-matrix
	$(PY) -m uv pip install --quiet --python $(VENV)-matrix --resolution $(2) -e '.[test]'
	OMP_NUM_THREADS=1 $(VENV)-matrix/bin/python -m pytest -n 2 --dist loadfile -q tests
	rm -rf $(VENV)-matrix
endef

clean:
	rm -rf $(VENV) $(VENV)-matrix build dist site *.egg-info
