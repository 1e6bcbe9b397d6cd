# A bare machine with Python 3.11 or newer, make and git is enough: each target first installs what
# it needs into .venv, from the package index and nowhere else.
#
#   make demo       learn the handwritten digits, write a report, predict from the model file
#   make test       everything that must hold: style, types, import order, tests
#   make lint       the same without the tests
#   make bench      measurements beside timm; PHOTOS=FOLDER names the photos to use
#   make campaign   the slow tests, then the measurements
#   make clean      remove what was built and installed here; runs/ stays, but for runs/demo

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
DEMO := runs/demo
VITRAIL_DATA ?= ../shared/data
PHOTOS ?= $(VITRAIL_DATA)/flowers/val

.DELETE_ON_ERROR:
.PHONY: demo test lint bench campaign clean

demo: $(VENV)/installed
	rm -rf $(DEMO)
	$(BIN)/vitrail train digits --out $(DEMO)
	$(BIN)/python examples/new_digits.py $(DEMO)/new
	$(BIN)/vitrail predict $(DEMO)/model.safetensors $(DEMO)/new --out $(DEMO)/predictions.csv
	@echo
	@cut -d, -f1-3 $(DEMO)/predictions.csv
	@echo
	@echo "Report:       $(DEMO)/report.html"
	@echo "Model file:   $(DEMO)/model.safetensors"
	@echo "Predictions:  $(DEMO)/predictions.csv, for the images in $(DEMO)/new"

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(VENV)/installed-bench
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/inference.py
	$(BIN)/python benchmarks/pipeline.py $(PHOTOS)

campaign: $(VENV)/installed-bench
	$(BIN)/python -m pytest -m campaign
	$(BIN)/python benchmarks/parity.py
	$(BIN)/python benchmarks/families.py
	$(MAKE) bench

clean:
	rm -rf $(VENV) $(DEMO) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps: what is installed is as new as the files that say what to install.
$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing vitrail into $(VENV); the first time this takes a few minutes."
	@$(PIP) --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing vitrail and its tools into $(VENV); the first time this takes a few minutes."
	@$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-bench: $(VENV)/installed-dev
	@$(PIP) timm torchvision transformers
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
	    echo "vitrail: no '$(PYTHON)' here. Install Python 3.11 or newer, or name one:" \
	         "make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "vitrail: '$(PYTHON)' is $$($(PYTHON) --version 2>&1), but 3.11 or newer is needed." \
	         "Name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "vitrail: this Python cannot make virtual environments." \
	         "On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
