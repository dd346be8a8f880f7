# FirnDB: `make run` serves on this machine, `make test` runs everything. `make help` lists the rest.
SHELL := /bin/bash
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=
CLIENT_VERSIONS := 7.3.0 9.0.1 10.2.0
SDK    ?= 9.0.1
ECOSYSTEM := langchain llama-index haystack
ECOSYSTEM_SUITES := tests/e2e/ecosystem
CLIENTS := $(CLIENT_VERSIONS:%=.clients/%/.installed) $(ECOSYSTEM:%=.clients/%/.installed) .clients/typescript/.installed

.DEFAULT_GOAL := help
.PHONY: help check install lock proto run demo test test-long official-suite lint format types bench bench-builder bench-bulk bench-namespaces services services-stop clients clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

check: ## Check what the Makefile cannot install: Python 3.11+, its headers, a C++ compiler
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "FirnDB needs Python 3.11 or newer, and $(PYTHON) is none; name another: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	  || { echo "$(PYTHON) lacks venv; on Debian: apt-get install python3-venv"; exit 1; }
	@command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null \
	  || { echo "annoy is compiled at installation and needs a C++ compiler; on Debian: apt-get install g++"; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig as s; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))' \
	  || { echo "annoy is compiled at installation and needs Python's headers; on Debian: apt-get install python3-dev"; exit 1; }

install: $(VENV)/.installed ## Create the virtual environment from the locked versions

$(VENV)/.installed: pyproject.toml requirements.lock
	@$(MAKE) --no-print-directory check
	@echo "installing into $(VENV), which takes a minute or two ..." >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

lock: ## Lock the versions of all dependencies anew
	$(BIN)/pip-compile --quiet --strip-extras --all-extras --no-emit-index-url --no-emit-trusted-host \
	  --no-emit-find-links --no-header --output-file requirements.lock pyproject.toml

proto: install ## Generate the gRPC messages anew, after a change of api/grpc/vector_service.proto
	$(BIN)/python -m api.grpc.generate

run: install ## Serve: make run ARGS="--port 9000 --data DIR --api-key KEY"
	$(BIN)/firndb serve $(ARGS)

demo: install ## Load real embeddings through the official client and search them
	@$(BIN)/python -m bench.demo $(ARGS)

clients: install ## Install the official clients and what is built on them, each in an environment of its own
	@$(MAKE) --no-print-directory -j 3 $(CLIENTS)

$(ECOSYSTEM:%=.clients/%/.installed): .clients/%/.installed: $(ECOSYSTEM_SUITES)/%.txt
	test -x .clients/$*/bin/python || $(PYTHON) -m venv .clients/$*
	.clients/$*/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.clients/typescript/.installed: $(ECOSYSTEM_SUITES)/typescript/package.json $(ECOSYSTEM_SUITES)/typescript/package-lock.json
	@mkdir -p $(@D) && cp $^ $(@D)
	@if command -v npm >/dev/null; then cd $(@D) && npm ci --silent --no-audit --no-fund && touch .installed; \
	  else echo "no npm here: the TypeScript client is left out, and its test is skipped"; fi

.clients/%/.installed: tests/e2e/client-requirements.txt
	test -x .clients/$*/bin/python || $(PYTHON) -m venv .clients/$*
	.clients/$*/bin/pip install --quiet --disable-pip-version-check "pinecone[asyncio,grpc]==$*" -r tests/e2e/client-requirements.txt
	@touch $@

lint: install ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: install clients lint ## Everything: lint, types, tests on real services with the official clients
	-$(BIN)/python -m infra.services fetch
	$(BIN)/python -m pytest -m "not long" $(ARGS)

test-long: install clients ## The full counts of the long loops; writes docs/test-report.md
	-$(BIN)/python -m infra.services fetch
	$(BIN)/python -m pytest --long-report docs/test-report.md $(ARGS)

official-suite: install ## The official client's own suite, unmodified: SUITE=/checkout/of/the/client [SDK=10.2.0]
	@test -n "$(SUITE)" || { echo "which checkout? make official-suite SUITE=/path (see CONTRIBUTING.md)"; exit 1; }
	$(BIN)/python -m tests.official.run $(SUITE) --sdk $(SDK) $(ARGS)

bench: install ## Ingest, latency and recall on real embeddings, embedded and Kafka + S3
	-$(BIN)/python -m infra.services fetch
	$(BIN)/python -m bench.run $(ARGS)

bench-builder: install ## The builder: a million records, ten rounds of churn; ARGS="--records 100000"
	-$(BIN)/python -m infra.services fetch
	$(BIN)/python -m bench.builder $(ARGS)

bench-bulk: install ## An import beside the same records upserted, and an export; ARGS="--records 1000000"
	$(BIN)/python -m bench.bulk $(ARGS)

bench-namespaces: install ## 100,000 small namespaces: memory, objects, bytes, latencies (ARGS="--count 5000" for fewer)
	$(BIN)/python -m bench.namespaces $(ARGS)

services: install ## Start a real Kafka, S3 server and PostgreSQL here, print how to use them
	@$(BIN)/python -m infra.services up

services-stop: install ## End just those
	@$(BIN)/python -m infra.services down

clean: ## Remove the environment, caches and downloads (never the data folder)
	rm -rf $(VENV) .clients .services/cache .mypy_cache .ruff_cache .pytest_cache build *.egg-info
