# Each target brings what it needs, from a bare Python 3.11 and make; run again, it costs next to nothing.
PYTHON ?= python3
RUN := .venv/bin/python
# Where the shell forbids it, each of the hundreds of programs that the tests start would compile all it imports: a second.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-long fuzz check bench chaos proto init release format

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: ## the environment for working on it (.venv), from uv.lock
	@$(PYTHON) scripts/bootstrap.py dev

demo: ## real tasks here, in containers or in the sandbox, with a live table; ALL=1 with PyTorch and TensorFlow too (gigabytes)
	@$(PYTHON) scripts/bootstrap.py run
	@$(RUN) scripts/demo.py $(if $(ALL),--all)

test: setup ## the checks, then all tests but the long ones; starts a private Docker engine where none is reachable
	@$(RUN) scripts/run_tests.py

test-fast: setup ## pure code, and the contracts that need neither engine nor sandbox: a minute
	@$(RUN) scripts/run_tests.py --fast

test-long: setup ## everything that takes minutes
	@$(RUN) scripts/run_tests.py --long

FUZZ_SECONDS ?= 60
fuzz: setup ## FUZZ_SECONDS=60 of new inputs for each reader of strangers' bytes (TARGET=journal for one); what it finds is kept
	@$(PYTHON) scripts/bootstrap.py fuzz
	@$(RUN) scripts/run_fuzz.py $(FUZZ_SECONDS) $(TARGET)

check: setup ## format, lint, types, layers, dependencies, generated code
	@$(RUN) scripts/check.py

bench: ## measured beside what a user would write instead, printing ratios; NAME=dispatch for one
	@$(PYTHON) scripts/bootstrap.py bench
	@$(RUN) scripts/run_bench.py $(NAME)

SEED ?= 1
TASKS ?= 1000
chaos: setup ## TASKS=1000 tasks while workers, pool and engine are struck by SEED=1 (SPIN=60 processes beside, BEFORE=commit); then what must hold
	@$(RUN) scripts/run_chaos.py $(SEED) $(TASKS) $(if $(SPIN),--spin=$(SPIN)) $(if $(BEFORE),--before=$(BEFORE))

proto: setup ## generate the wire's code, then buf lint and the breaking-change check
	@$(RUN) scripts/proto.py generate
	@$(RUN) scripts/buf.py

init: setup ## build the static program that is PID 1 of every capsule, for both architectures
	@$(RUN) src/hivemind_worker/runtime/capsule/init/build.py

release: setup ## dist/HiveMind-Worker-Release: the wheel, its installers, their sums
	@$(RUN) scripts/release.py

format: setup ## bring all files into the one format
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix --quiet .
