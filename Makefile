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
# Two more processes than cores: many tests wait for a service to start.
WORKERS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 2)))
COVERAGE ?=
AGAIN ?=

.PHONY: help serve test test-fast tests tests-fast test-env check check-page docs sample lock clean
.PHONY: image test-containers test-pacs prove-bulk try-replicas load bench bench-quiet lock-bench
.PHONY: audit sbom fuzz differential

help:  ## List what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

serve: .venv/.serve-$(DEVICE)  ## Start the service on http://HOST:PORT (127.0.0.1:8000; DEVICE=cpu|gpu)
	CXR_HOST=$(HOST) CXR_PORT=$(PORT) CXR_DEVICE=$(DEVICE) $(BIN)/python -m app

test: .venv/.test  ## Lint, check types and layers, run every test (COVERAGE=yes: measure coverage)
	$(MAKE) --no-print-directory --jobs 2 check tests

test-fast: .venv/.test  ## Lint, check types, and run the tests that need no browser, container or training
	$(MAKE) --no-print-directory --jobs 2 check tests-fast

# AGAIN=yes: what failed while others kept the cores busy is tried once more, alone. Both tries are
# printed; a test that needs the second one is to be mended.
tests:
	TEST_DATA=$(TEST_DATA) $(BIN)/python -m pytest $(PARALLEL) $(if $(COVERAGE),--cov --cov-report=) $(PYTEST) \
	  || { [ $$? = 1 ] && [ -n "$(AGAIN)" ] && TEST_DATA=$(TEST_DATA) $(BIN)/python -m pytest --last-failed; }
	$(if $(COVERAGE),$(BIN)/python tests/coverage_floors.py)

tests-fast:
	TEST_DATA=$(TEST_DATA) $(BIN)/python -m pytest $(PARALLEL) -m "not slow" $(PYTEST)

# One file's tests run in one process, so that its fixtures are made once. Files are begun in the
# order of tests/conftest.py, the longest first.
PARALLEL := --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

test-env: .venv/.test  ## Install everything that `make test` needs, and run nothing

check: .venv/.test check-page  ## Lint, check types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The page's scripts are checked if npm is there and can install its tools; nothing else needs it.
check-page:
	@if ! command -v npm >/dev/null; then echo "no npm: the scripts of app/page are not checked"; \
	elif [ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --silent --no-audit --no-fund; then \
	  touch node_modules/.package-lock.json; npm run --silent check; \
	else echo "npm can't install: the scripts of app/page are not checked"; [ -z "$${CI:-}" ]; fi

docs: .venv/.test  ## Build the documentation in site/; a broken link or reference is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site

FUZZ_CORPUS ?= .fuzz/corpus
SECONDS_TO_FUZZ ?= 1800

fuzz: .venv/.test  ## Fuzz cxr.decode for SECONDS_TO_FUZZ (1800), with a corpus that grows in .fuzz/
	$(BIN)/pip install --disable-pip-version-check -q -r requirements/fuzz.txt
	mkdir -p .fuzz && $(BIN)/python -m fuzz.decode $(FUZZ_CORPUS) -artifact_prefix=.fuzz/ -max_total_time=$(SECONDS_TO_FUZZ)

FILES ?= 3000

differential: .venv/.test  ## Compare FILES (3000) quirky files with their plain twins and with DCMTK
	$(BIN)/python -m fuzz.differential $(TEST_DATA)/siim $(FILES)

sample: .venv/.serve-$(DEVICE)  ## Write sample.dcm and sample.png: a phantom, never a patient
	$(BIN)/python -m cxr.phantom

lock: .venv/.test  ## Pin the installed versions in requirements/
	$(BIN)/python requirements/lock.py

image:  ## Build the container image cxr-serve (DEVICE=cpu|gpu)
	docker build --build-arg DEVICE=$(DEVICE) --build-arg REVISION=$$(git rev-parse HEAD) \
	  --build-arg CREATED=$$(git log -1 --format=%cI) -t cxr-serve:$(if $(filter gpu,$(DEVICE)),gpu,latest) .

test-containers: .venv/.test  ## Build the image and try everything that `docker compose up` starts, in a real engine
	TEST_DATA=$(TEST_DATA) $(BIN)/python -m pytest tests/deploy tests/containers $(PYTEST)

PACS_PACKAGES := orthanc orthanc-dicomweb dcmtk dicom3tools

test-pacs: .venv/.test  ## Try the gateway with a real Orthanc, a real service and real senders (20 minutes; as root it installs them)
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v Orthanc >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(PACS_PACKAGES) >/dev/null; fi
	TEST_DATA=$(TEST_DATA) $(BIN)/python -m pytest tests/pacs $(PYTEST)

prove-bulk: .venv/.test  ## Score 20,000 made files on two Ray nodes, killing a worker, the driver and a node (an hour)
	$(BIN)/python -m bench.bulk make .bulk-proof/files
	$(BIN)/python -m bench.bulk kill .bulk-proof/files --out .bulk-proof/scores
	$(BIN)/python -m bench.bulk check .bulk-proof/files --out .bulk-proof/scores

try-replicas: .venv/.test  ## Restart, kill and freeze replicas (processes) behind Debian's nginx and HAProxy
	$(BIN)/python -m bench.replicas nginx
	$(BIN)/python -m bench.replicas haproxy

load: .venv/.serve-$(DEVICE) .venv/.load  ## Load a service with synthetic radiographs (LOAD="-u 10 -t 1m")
	PYTHONPATH=. $(BIN)/locust -f bench/locustfile.py --headless --host http://$(HOST):$(PORT) -u 10 -r 10 -t 1m $(LOAD)

BENCH_PEERS ?= .venv-bench
MINUTES ?= 44

bench: .venv/.test $(BENCH_PEERS)/.bench  ## Measure us and the peers: QUICK=1 in 5 minutes, else MINUTES=44 (BENCH="--data FILE")
	BENCH_PEERS=$(BENCH_PEERS) $(BIN)/python -m bench $(if $(QUICK),--quick,--minutes $(MINUTES)) $(BENCH)

MAIN = fastapi_onnx fastapi_careful fastapi_plain mosec_onnx
LOOPS = loop:our_read loop:read_carefully loop:read_leanly

bench-quiet: .venv/.test $(BENCH_PEERS)/.bench  ## All measurements of a quiet machine; QUICK=1 the main rows in 12 minutes
	$(if $(QUICK),$(MAKE) bench QUICK= MINUTES=8 BENCH="--only ours $(MAIN) $(BENCH)",$(MAKE) bench)
	BENCH_PEERS=$(BENCH_PEERS) $(BIN)/python -m bench.side_by_side $(if $(QUICK),ours $(MAIN) $(LOOPS) --rounds 3 --seconds 2) | tee bench/results/ways.md
	BENCH_PEERS=$(BENCH_PEERS) $(BIN)/python -m bench.weather $(if $(QUICK),--only ours) | tee bench/results/weather.md

lock-bench: .venv-bench/.bench  ## Pin the installed versions of the peers in requirements/bench.txt
	.venv-bench/bin/python requirements/lock.py bench

audit: .venv/.serve-cpu .venv/.audit  ## Look all pinned packages up for known faults (needs the internet), and list licences
	$(BIN)/python requirements/licences.py
	$(BIN)/python requirements/audit.py

sbom: .venv/.audit  ## Write CycloneDX lists of what ships to dist/
	mkdir -p dist
	for device in cpu gpu; do \
	  $(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --of JSON \
	    -o dist/sbom-$$device.json requirements/serve-$$device.txt; done

clean:  ## Remove .venv and every cache
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage node_modules site

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.serve-%: requirements/serve-%.txt | .venv/bin/python
	$(BIN)/pip install --disable-pip-version-check -q -r $<
	@touch $@

.venv/.test: requirements/test.txt | .venv/bin/python
	$(BIN)/pip install --disable-pip-version-check -q -r $<
	@touch $@

%/.bench: requirements/bench.txt
	test -x $*/bin/python || $(PYTHON) -m venv $*
	$*/bin/pip install --disable-pip-version-check -q -r $< packaging
	@touch $@

.venv/.audit .venv/.load: .venv/.%: requirements/%.txt | .venv/bin/python
	$(BIN)/pip install --disable-pip-version-check -q -r $<
	@touch $@
