# Everything in a virtual environment of its own (.venv), with the tested versions of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
LOCK := requirements/$(shell $(PYTHON) requirements/lock.py --name)

.PHONY: demo test nightly lint types lock audit clean

demo: $(VENV)/run-installed
	$(BIN)/wdsfilter demo demo

test: $(VENV)/dev-installed
	$(BIN)/python -m pytest

nightly: $(VENV)/dev-installed
	$(BIN)/python -m pytest -m nightly
	$(BIN)/python -m benchmarks.mutations

lint: $(VENV)/dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev-installed
	$(BIN)/mypy

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# LOCKED=1 installs only files whose SHA-256 requirements/ holds; without it, versions of constraints.txt.
ifdef LOCKED
$(VENV)/run-installed $(VENV)/dev-installed: setup.cfg pyproject.toml $(LOCK) | $(VENV)/bin/python
	$(PIP) install --require-hashes --no-deps -r $(LOCK)
	$(PIP) install --no-deps --no-build-isolation -e .
	$(PIP) check
	touch $@
else
$(VENV)/run-installed: setup.cfg pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install -c constraints.txt -e .
	touch $@

$(VENV)/dev-installed: setup.cfg pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install -c constraints.txt -e '.[dev]'
	touch $@
endif

lock: | $(VENV)/bin/python
	$(BIN)/python requirements/lock.py

audit: $(VENV)/dev-installed
	$(PIP) install pip-audit
	$(BIN)/pip-audit --disable-pip --require-hashes -r $(LOCK)

clean:
	rm -rf $(VENV) demo build dist *.egg-info
