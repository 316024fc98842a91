# The habits. `make VENV=.venv install` once, then any of the others.
VENV ?= .venv
PYTHON := $(VENV)/bin/python

.PHONY: install test lint format type stubs bench demo clean

install:  ## a virtual environment with everything that development needs
	test -x $(PYTHON) || python3 -m venv $(VENV)
	PQRST_WERROR=1 $(PYTHON) -m pip install -e ".[test,dev]"

test:
	$(PYTHON) -m pytest

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(VENV)/bin/clang-format --dry-run --Werror csrc/*.hpp csrc/*.cpp

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
	$(VENV)/bin/clang-format -i csrc/*.hpp csrc/*.cpp

type:
	$(PYTHON) -m mypy

stubs:  ## pqrst.pyi from the docstrings and signatures of the extension
	$(PYTHON) tests/make_stub.py > pqrst.pyi.tmp && mv pqrst.pyi.tmp pqrst.pyi

bench:
	$(PYTHON) benchmarks/native.py
	$(PYTHON) benchmarks/preprocess.py

demo:
	$(PYTHON) train.py --overwrite

clean:  ## build products and caches; never data or runs
	rm -rf build dist *.egg-info *.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -not -path "./$(VENV)/*" -exec rm -rf {} +
