# The commands of a checkout. Each of them sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# One thread in each process: several models share the machine.
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test test-all lint up down bench install

install: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| (echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2; exit 2)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e '.[dev,postgresql]'
	@touch $(READY)

demo: $(READY)
	$(BIN)/kalimtak demo

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-all: $(READY)
	$(BIN)/python -m pytest -m ''

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

up: $(READY)
	$(BIN)/kalimtak up

down: $(READY)
	$(BIN)/kalimtak down

bench: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[bench]"
	@for file in benchmarks/bench_*.py; do \
		$(BIN)/python -m benchmarks.$$(basename $$file .py) || exit 1; \
	done
