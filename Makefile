# All commands work on a machine with Python 3.11+, pip and git; nothing needs root, a service or a system ffmpeg.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-cluster check bench bench-check format screenshots lock clean

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## Install, then make a small archive, index it and search it
	$(BIN)/visxp demo

test: $(VENV)/.installed-dev ## Install, then run the tests
	$(BIN)/python -m pytest

test-slow: $(VENV)/.installed-dev ## Run the tests that take longer, and those in Chromium (which must be installed)
	$(BIN)/python -m pytest -m "slow or browser"

test-cluster: $(VENV)/.installed-dev ## Run the test that kills one of two Ray nodes; wants an idle machine for two minutes
	VISXP_RAY_CLUSTER=1 $(BIN)/python -m pytest -m slow tests/test_ray_cluster.py

check: $(VENV)/.installed-dev ## Lint, formatting, types, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

bench: $(VENV)/.installed-dev ## Measure speed and memory against baselines, and record it; 30 minutes (BENCH="--only index")
	$(BIN)/python -m tests.benchmarks.run --record $(BENCH)

bench-check: $(VENV)/.installed-dev ## Measure again, and fail where a ratio is 25 % above the recorded one
	$(BIN)/python -m tests.benchmarks.run --check $(BENCH)

format: $(VENV)/.installed-dev ## Format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

screenshots: $(VENV)/.installed-dev ## Pictures of every tab of the page on the demo's archive, into build/screenshots (needs Chromium)
	$(BIN)/python -m tests.make_screenshots build/screenshots --docs docs

lock: $(VENV)/.installed-dev ## Pin all dependencies anew
	$(BIN)/pip-compile --quiet --upgrade --all-extras --strip-extras --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --no-header --no-annotate --output-file requirements.lock pyproject.toml
	sed -i.bak -e "s/^torch==\([0-9.]*\)+.*/torch==\1/" -e "/^#/d" requirements.lock && rm requirements.lock.bak

clean: ## Remove what was installed and built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml requirements.lock | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml requirements.lock | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[dev,train,web,ray]'
	touch $@ $(VENV)/.installed
