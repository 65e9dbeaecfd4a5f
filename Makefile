# Two commands matter: `make serve` and `make test`.  `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
DEVICE ?= $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
TEST_DATA ?= ../shared/data
BIN := .venv/bin

.PHONY: help serve test test-env lint check sample lock clean

help:  ## List what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

serve: .venv/.serve-$(DEVICE)  ## Start the service on http://HOST:PORT (127.0.0.1:8000; DEVICE=cpu|gpu)
	CXR_HOST=$(HOST) CXR_PORT=$(PORT) CXR_DEVICE=$(DEVICE) $(BIN)/python -m app

test: .venv/.test check  ## Lint, check types and layers, run every test
	TEST_DATA=$(TEST_DATA) $(BIN)/python -m pytest $(PYTEST)

test-env: .venv/.test  ## Install everything that `make test` needs, and run nothing

check: .venv/.test  ## Lint, check types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

sample: .venv/.serve-$(DEVICE)  ## Write sample.dcm and sample.png: a drawn chest, never a patient
	$(BIN)/python -m cxr.phantom

lock: .venv/.test  ## Pin the installed versions in requirements/
	$(BIN)/python requirements/lock.py

clean:  ## Remove .venv and every cache
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.serve-%: requirements/serve-%.txt | .venv/bin/python
	$(BIN)/pip install --disable-pip-version-check -q -r $<
	@touch $@

.venv/.test: requirements/test.txt | .venv/bin/python
	$(BIN)/pip install --disable-pip-version-check -q -r $<
	@touch $@
