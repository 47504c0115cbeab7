.PHONY: sync check test types bench docs

PYTHON ?= .venv/bin/python

sync:
	python3 -m venv .venv
	$(PYTHON) -m pip install -e ".[dev]"

check:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check core operators runners
	.venv/bin/lint-imports --config setup.cfg

types:
	$(PYTHON) -m mypy

test:
	$(PYTHON) -m pytest
	$(PYTHON) -m pytest --doctest-modules --pyargs gdo -p no:cacheprovider -n 0

bench:
	$(PYTHON) benchmarks/start_up.py
	$(PYTHON) benchmarks/label_accuracy.py
	$(PYTHON) benchmarks/typed_throughput.py
	$(PYTHON) benchmarks/table.py
