# make demo   install, pretrain PLM on the bundled tiles, show what happened
# make test   install, run the tests
# make lint   check the style
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# Two processes of one thread each; a file stays in one process, its fixtures are made once.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile

.PHONY: install demo test test-slow lint clean

install: $(VENV)/installed

$(VENV)/installed: setup.py requirements.txt
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

lint: install
	$(PY) -m pip install --quiet ruff && $(PY) -m ruff check .

clean:
	rm -rf $(VENV) build *.egg-info
