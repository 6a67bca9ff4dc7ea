# `make demo` needs Python 3.11 or newer with venv, and the network once; `make test` likewise.

PYTHON ?= python3
VENV ?= .venv
OUT ?= demo-run
RUN ?= train-run
ARGS ?=
PROCESSES ?= 2

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# parity_seem.py needs the files it compares with
BENCHMARKS := $(filter-out %/parity_seem.py,$(sort $(wildcard benchmarks/*.py)))
# quiet, yet what goes wrong is shown; no question is ever asked
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test lint bench train clean

help:
	@echo "make install   into $(VENV), once"
	@echo "make demo      the whole chain on drawn slides, into OUT=$(OUT)"
	@echo "make test      the tests, in PROCESSES=2; ARGS='-k bag -x' goes to pytest"
	@echo "make lint      style, types, layers"
	@echo "make bench     every script in benchmarks/, one JSON line each"
	@echo "make train     DATA='DIR DIR': the weights that ship go on learning, in RUN=train-run,"
	@echo "               in PROCESSES=2 that share a batch: 1, 2, 4, 8 or 16, as cores allow"
	@echo "make clean     remove $(VENV) and caches"
	@echo "variables: PYTHON=$(PYTHON) VENV=$(VENV) OUT=$(OUT) ARGS=$(ARGS) PROCESSES=$(PROCESSES)"

install: $(INSTALLED)

# torch, torchvision and timm are left to pip in one go, so that they fit each other
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "xpath needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	    || { echo "no venv module? on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing into $(VENV); a first time this takes minutes"
	@$(PIP) install -e ".[dev]"
	@touch $@

demo: $(INSTALLED)
	$(BIN)/xpath demo --out "$(OUT)"

test: $(INSTALLED)
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(INSTALLED)
	@for script in $(BENCHMARKS); do \
	    echo "$$script" >&2; $(BIN)/python "$$script" $(ARGS) || exit 1; \
	done

# processes of one thread share a batch: on two cores 16 crops take 1.3 s so, 8 in one process of two 0.95 s;
# threads wait asleep: beside other work, waiting awake makes a step five times as long
train: $(INSTALLED)
	OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc-per-node $(PROCESSES) \
	    pipelines/train_segmentor.py --preset shipped --data $(DATA) --out "$(RUN)" $(ARGS)

clean:
	rm -rf "$(VENV)" build dist *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
