# heatbox: `make help` lists what can be made. A fresh machine needs python3 (3.11 or newer), make and a package index.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUDIO := .venv-studio
LABEL_STUDIO_VERSION := 1.23.2
STUDIO_QUIET := LATEST_VERSION_CHECK=false COLLECT_ANALYTICS=false SENTRY_DSN= FRONTEND_SENTRY_DSN=
export PYTHONDONTWRITEBYTECODE ?= 1

.DEFAULT_GOAL := help
.PHONY: help env demo test check lint types readme references bench docs studio-env clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(VENV)/.ready ## set up the environment in .venv

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "heatbox needs Python 3.11 or newer; set PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed; on Debian: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	@echo "installing heatbox and what it needs (the first time downloads torch)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[all]'
	@touch $@

demo: env ## make pictures, train on image labels, fit boxes, measure them, write demo-out/index.html
	@$(BIN)/heatbox demo --out demo-out

test: env ## run every test; the servers they need are started by the tests
	@$(BIN)/pytest

check: lint types test readme ## everything that must hold before a change lands

lint: env ## style (ruff) and the floors of the house (import-linter)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

types: env ## mypy, strict
	@$(BIN)/mypy

readme: env ## run the commands of README.md
	@$(BIN)/python tests/readme_commands.py README.md

references: env ## how far each explainer is from what it was checked against, as a table
	@$(BIN)/python tests/references.py

bench: env ## benchmarks, as ratios measured in one run
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

docs: env ## build the documentation into site/
	@$(BIN)/mkdocs build --strict

studio-env: env ## install Label Studio in an environment of its own (.venv-studio), for the tests that ask it
	@test -x $(STUDIO)/bin/python || $(PYTHON) -m venv $(STUDIO)
	@test -x $(STUDIO)/bin/label-studio || $(BIN)/uv pip install --quiet --python $(STUDIO)/bin/python label-studio==$(LABEL_STUDIO_VERSION)
	@test -d $(STUDIO)/empty || { $(STUDIO_QUIET) LABEL_STUDIO_BASE_DATA_DIR=$(CURDIR)/$(STUDIO)/empty.new \
	  $(STUDIO)/bin/label-studio version >/dev/null 2>&1 && mv $(STUDIO)/empty.new $(STUDIO)/empty; }

clean: ## remove environments and everything made
	@rm -rf $(VENV) $(STUDIO) demo-out site build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
