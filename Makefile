PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# MindSpore logs every import otherwise.
export GLOG_v ?= 3

.PHONY: demo environment test campaigns docs lint types clean

demo: $(VENV)/installed
	$(BIN)/python examples/demo.py

environment: $(VENV)/installed

# Tests are shared out among this many processes, two a core of two: one computes while the other waits. 0 is this one alone.
WORKERS ?= 4
test: $(VENV)/installed
	$(BIN)/python -m pytest --durations=10 -n $(WORKERS) --dist worksteal -m "not campaign"

# What the tests only sample; takes half an hour more.
campaigns: $(VENV)/installed
	$(BIN)/python -m pytest --durations=10 -n $(WORKERS) --dist load -m campaign

# The site, in site/.
docs: $(VENV)/installed
	DISABLE_MKDOCS_2_WARNING=true PYTHONPATH=$(CURDIR) $(BIN)/python -m mkdocs build --strict --quiet

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/installed
	$(BIN)/mypy

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m compileall -q xcit_hub converters cards  # as pip does for a wheel
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-* dist build site
