# heatbox: `make help` lists what can be made. A fresh machine needs python3 (3.11 or newer), make and a package index.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUDIO := .venv-studio
ML := .venv-ml
JOBS ?= 2
DATA ?= ../shared/data
LABEL_STUDIO_VERSION := 1.23.2
STUDIO_QUIET := LATEST_VERSION_CHECK=false COLLECT_ANALYTICS=false SENTRY_DSN= FRONTEND_SENTRY_DSN=
export PYTHONDONTWRITEBYTECODE ?= 1

.DEFAULT_GOAL := help
.PHONY: help env demo test e2e check lint types readme references bench loop docs studio studio-env ml-env clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

studio: env studio-env ## start Label Studio with heatbox connected and a project of the demo's pictures
	@exec $(BIN)/heatbox studio up --program $(STUDIO)/bin/label-studio

test: env ## run every test, in two processes (JOBS=2); the servers they need are started by the tests
	@$(BIN)/pytest -n $(JOBS) --dist loadfile

e2e: env studio-env ml-env ## only the tests of whole ways: a real Label Studio, a browser, queues, machines
	@$(BIN)/pytest -n $(JOBS) --dist loadfile tests/e2e

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

loop: env studio-env ## the whole loop on real photographs: labels, corrections, training, tuning, the curve (DATA=../shared/data)
	@PYTHONPATH=benchmarks $(BIN)/python -P -m loop --data $(DATA) --out loop-out --program $(STUDIO)/bin/label-studio $(if $(SET),--set $(SET)) $(if $(SEEDS),--seeds $(SEEDS))

docs: env ## build the documentation into site/
	@$(BIN)/mkdocs build --strict

studio-env: env ## install Label Studio in an environment of its own (.venv-studio), for the tests that ask it
	@test -x $(STUDIO)/bin/python || $(PYTHON) -m venv $(STUDIO)
	@test -x $(STUDIO)/bin/label-studio || $(BIN)/uv pip install --quiet --python $(STUDIO)/bin/python label-studio==$(LABEL_STUDIO_VERSION)
	@test -d $(STUDIO)/empty || { $(STUDIO_QUIET) LABEL_STUDIO_BASE_DATA_DIR=$(CURDIR)/$(STUDIO)/empty.new \
	  $(STUDIO)/bin/label-studio version >/dev/null 2>&1 && mv $(STUDIO)/empty.new $(STUDIO)/empty; }

ml-env: env $(ML)/.ready ## install label-studio-ml with heatbox's adapter in an environment of its own (.venv-ml), for its tests

$(ML)/.ready: pyproject.toml constraints.txt
	@test -x $(ML)/bin/python || $(PYTHON) -m venv $(ML)
	@grep -vE '^(attr|flask|itsdangerous|jinja2|werkzeug)==' constraints.txt >$(ML)/constraints.txt # it pins old ones
	@$(BIN)/uv pip install --quiet --python $(ML)/bin/python -c $(ML)/constraints.txt -e '.[label-studio-ml]'
	@touch $@

clean: ## remove environments and everything made
	@rm -rf $(VENV) $(STUDIO) $(ML) .studio demo-out loop-out screenshots site build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
