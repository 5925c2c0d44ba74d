# Everything runs in a virtual environment of its own, one for each Python version:
#
#   make demo                      100,000 jobs through a queue on a temporary PostgreSQL
#   make demo DSN=postgresql://... the same on your server, in a schema that is removed after
#   make test                      the test suite: compiled, pure Python, and on the oldest PostgreSQL
#   make test ARGS='-k enqueue'    ... a part of it
#   make fuzz                      the kernels and their twins on a thousand times as many inputs
#   make fuzz EXAMPLES=100000      ... as many a test; failures are kept in .hypothesis/ and come first
#   make sanitize                  the tests of the kernels, compiled with address and UB sanitizers
#   make sanitize EXAMPLES=10000   ... on so many inputs a test
#   make bench                     kernels and the whole path, in five minutes or so; JSON in .benchmarks/
#   make bench DSN=postgresql://... on your server; ARGS='-k latency' for a part
#   make bench COMPARE=FILE.json   ... beside an earlier run
#   make instructions              instructions of the kernels against bench/instructions.json
#   make instructions-update       ... which this writes
#   make results                   docs/results.md and its plots, from bench/results/*.json, and
#                                  docs/faults.md, from tests/faults/results/*.json
#   make faults                    faults under load for 30 minutes, with an account of every job; the
#                                  seed is printed, JSON in .faults/
#   make faults MINUTES=5 SEED=... less, or again; ARGS='--kinds kill pause' for some kinds
#   make soak MINUTES=30           mixed load and churn: memory, connections, dead rows stay flat
#   make lint                      ruff, mypy --strict, import-linter
#   make docs                      the documentation, into site/
#   make wheels                    sdist and wheels for each Python found, built, installed and tried
#   make wheels PYTHONS=/a/python  ... for these interpreters
#   make clean                     remove what make created
#
# PYTHON=python3.13 make test      chooses the interpreter; 3.11 or newer
# PGQ_TEST_DSN=postgresql://...    has the tests use your server instead of an embedded one

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

# The first interpreter that is new enough.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
    $$p -c '$(NEW_ENOUGH)' 2>/dev/null && { echo $$p; break; }; done)

FACTS := $(shell $(or $(PYTHON),false) -c 'import sys, sysconfig; \
    print("%d.%d" % sys.version_info[:2], sysconfig.get_config_var("EXT_SUFFIX"))' 2>/dev/null)
PYTHON_VERSION := $(word 1,$(FACTS))
EXT_SUFFIX := $(word 2,$(FACTS))

VENV := .venv-$(PYTHON_VERSION)
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check --quiet

# psycopg is compiled where libpq can be compiled against, else its own binaries are taken.
PSYCOPG := $(shell test -e "$$(pg_config --includedir 2>/dev/null)/libpq-fe.h" \
    && echo psycopg || echo psycopg-binary)

# The versions that the tests ran with; see .ci/dependencies.py.
LOCKED := --constraint .ci/constraints.txt

KERNELS := $(wildcard pgq_fast_ext/*.pyx)
KERNEL_SOURCES := $(KERNELS) $(wildcard pgq_fast_ext/*.pxd) setup.py
COMPILED := $(KERNELS:.pyx=$(EXT_SUFFIX))
# What changes the compiled result without changing a file.
VARIANT := $(PGQ_FAST_LINE_TRACING)/$(PGQ_FAST_SANITIZE)/$(CC)/$(CFLAGS)

# The tests start many short processes, which would compile every module anew each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo bench instructions instructions-update results faults soak test test-c test-python test-oldest-pg fuzz sanitize lint docs wheels build python environment installed compiled clean FORCE

help:
	@sed -n 's/^#   \(make\)/\1/p' Makefile

demo: $(VENV)/.demo $(VENV)/.kernels
	@$(RUN) -m pgq_fast.demo $(if $(DSN),--dsn '$(DSN)') $(ARGS)

# Files side by side, each worker with a server of its own: tests wait more than they compute. In the
# order of their names, as those with few tests, which would be left for the end, are often the longest.
# With a server of the user's there is one for all, so one after the other.
PYTEST = $(RUN) -m pytest $(if $(PGQ_TEST_DSN),,--numprocesses 3 --dist loadfile --no-loadscope-reorder)

test: test-c test-python test-oldest-pg

test-c: $(VENV)/.test $(VENV)/.kernels
	PGQ_FAST_IMPL=c $(PYTEST) $(ARGS)

# What does not differ between the implementations was tested above.
test-python: $(VENV)/.test $(VENV)/.kernels
	PGQ_FAST_IMPL=python $(PYTEST) -m 'not impl_agnostic' $(ARGS)

# The same server answers whatever version is asked for when the user brings one.
test-oldest-pg: $(VENV)/.test $(VENV)/.kernels
	$(if $(PGQ_TEST_DSN),,PGQ_TEST_PG=16 PGQ_FAST_IMPL=c $(PYTEST) -m pg_matrix $(ARGS))

# What decodes and encodes, without a server. Inputs that failed are tried first the next time.
FUZZED := tests/kernels --ignore=tests/kernels/test_on_server.py --ignore=tests/kernels/test_kernel_leaks.py

fuzz: $(VENV)/.test $(VENV)/.kernels
	PGQ_FAST_IMPL=c PGQ_TEST_FUZZ_EXAMPLES=$(or $(EXAMPLES),20000) $(RUN) -m pytest $(FUZZED) \
	    --numprocesses 3 --dist load --timeout=3600 $(ARGS)

# Built beside the tree, which keeps its kernels. Python's own allocator would hide from the sanitizer
# what is read beyond the end of an object, and what Python itself never frees is no leak of ours.
SANITIZED := build/sanitized-$(PYTHON_VERSION)
RUN_SANITIZED := env LD_PRELOAD="$$($(or $(CC),gcc) -print-file-name=libasan.so)" PYTHONMALLOC=malloc \
    ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=1 \
    UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 PYTHONPATH=$(SANITIZED) $(RUN) -P

sanitize: $(VENV)/.test $(SANITIZED)/.kernels
	@$(RUN_SANITIZED) -c 'import pgq_fast_ext.codec as codec; assert codec.__file__.startswith("$(CURDIR)/$(SANITIZED)"), codec.__file__'
	PGQ_FAST_IMPL=c $(if $(EXAMPLES),PGQ_TEST_FUZZ_EXAMPLES=$(EXAMPLES)) $(RUN_SANITIZED) -m pytest \
	    $(FUZZED) --timeout=3600 -p no:cacheprovider $(ARGS)

# Figures, and everything they depend on, are kept under the time that they were made at.
bench: $(VENV)/.test $(VENV)/.kernels
	@mkdir -p .benchmarks
	@PYDANTIC_DISABLE_PLUGINS=1 $(RUN) -m pytest bench/ $(if $(DSN),--pg-dsn '$(DSN)') \
	    --benchmark-columns=median,iqr,ops,rounds --benchmark-max-time=0.5 \
	    --benchmark-json='.benchmarks/$(shell date -u +%Y-%m-%dT%H%M%S).json' \
	    $(if $(COMPARE),--benchmark-compare='$(COMPARE)') $(ARGS)

# Not a timed test: callgrind counts the same on a busy machine.
instructions: $(VENV)/.test $(VENV)/.kernels
	@$(RUN) bench/instructions.py $(ARGS)

instructions-update: $(VENV)/.test $(VENV)/.kernels
	@$(RUN) bench/instructions.py --update $(ARGS)

results: $(VENV)/.test
	$(RUN) bench/plots.py bench/results/*.json --into docs/results
	PYTHONPATH=tests $(RUN) -m faults.page

# Workers are hit at random moments, and the choices are repeated by SEED.
FAULTS = mkdir -p .faults && PYTHONPATH=tests $(RUN) -m $(1) --minutes $(or $(MINUTES),30) \
    $(if $(SEED),--seed '$(SEED)') --json '.faults/$(1)-$(shell date -u +%Y-%m-%dT%H%M%S).json' $(ARGS)

faults: $(VENV)/.test $(VENV)/.kernels
	@$(call FAULTS,faults)

soak: $(VENV)/.test $(VENV)/.kernels
	@$(call FAULTS,faults.soak)

lint: $(VENV)/.lint $(VENV)/.kernels
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

# Every warning is an error: a link that leads nowhere, a name that is not there.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --site-dir site

# Nothing of this environment's but the tools is used: wheels are built of the sdist alone.
wheels: $(VENV)/.wheels
	$(RUN) .ci/wheels.py $(or $(PYTHONS),--found)

build: $(VENV)/.kernels

# The interpreter of the environment, for scripts.
python:
	@echo $(RUN)

clean:
	rm -rf .venv-* build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache \
	    .import_linter_cache .hypothesis .benchmarks .faults
	rm -f pgq_fast_ext/*.so pgq_fast_ext/*.pyd pgq_fast_ext/*.c pgq_fast_ext/*.html
	find pgq_fast pgq_fast_ext tests bench examples -name __pycache__ -prune -exec rm -rf {} + \
	    2>/dev/null || true

# The environment with what a build needs; the build uses it without isolation.
$(VENV)/.created:
	@test -n '$(PYTHON_VERSION)' || { echo >&2 \
	    'Python 3.11 or newer is needed: PYTHON=/path/to/python make ...'; exit 1; }
	@$(PYTHON) -c '$(NEW_ENOUGH)' || { echo >&2 \
	    '$(PYTHON) is Python $(PYTHON_VERSION), 3.11 or newer is needed'; exit 1; }
	@echo 'creating $(VENV)'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade pip
	@$(PIP) install --upgrade $(LOCKED) 'setuptools>=77' 'Cython>=3.3'
	@touch $@

# Editable, so that the tests see the tree; the kernels have their own rule below.
INSTALL = PGQ_FAST_NO_EXTENSIONS=1 PYTHONWARNINGS='ignore:Editable installation' \
    $(PIP) install $(LOCKED) --no-build-isolation --editable

$(VENV)/.demo: $(VENV)/.created pyproject.toml
	@echo 'installing pgq_fast[demo]'
	@$(INSTALL) '.[demo]'
	@touch $@

$(VENV)/.test: $(VENV)/.created pyproject.toml
	@echo 'installing pgq_fast[test,$(PSYCOPG)]'
	@$(INSTALL) '.[test,$(PSYCOPG)]'
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	@echo 'installing pgq_fast[lint]'
	@$(INSTALL) '.[lint]'
	@touch $@

$(VENV)/.docs: $(VENV)/.created pyproject.toml
	@echo 'installing pgq_fast[docs]'
	@$(INSTALL) '.[docs]'
	@touch $@

$(VENV)/.wheels: $(VENV)/.created pyproject.toml
	@echo 'installing pgq_fast[wheels]'
	@$(INSTALL) '.[wheels]'
	@touch $@

# Rebuilt when a source or a setting changed, or when a compiled kernel is missing.
$(VENV)/.kernels: $(KERNEL_SOURCES) $(VENV)/.created $(VENV)/.variant \
    $(if $(filter-out $(wildcard $(COMPILED)),$(COMPILED)),FORCE)
	@echo 'compiling the kernels'
	@$(RUN) setup.py --quiet build_ext --inplace
	@touch $@

# With the packages beside the kernels, as they are imported from there.
$(SANITIZED)/.kernels: $(KERNEL_SOURCES) $(shell find pgq_fast pgq_fast_ext -name '*.py' -o -name '*.sql') \
    $(VENV)/.created $(VENV)/.variant
	@echo 'compiling the kernels with sanitizers'
	@PGQ_FAST_SANITIZE=address,undefined $(RUN) setup.py --quiet build --build-base build/sanitizing \
	    --build-lib $(SANITIZED)
	@touch $@

# All that the checks need: once there is an environment, the other two can run side by side.
environment: $(VENV)/.created

installed: $(VENV)/.test $(VENV)/.lint $(VENV)/.docs $(VENV)/.wheels

compiled: $(VENV)/.kernels $(SANITIZED)/.kernels

$(VENV)/.variant: $(VENV)/.created FORCE
	@echo '$(VARIANT)' | cmp -s - $@ || echo '$(VARIANT)' > $@

FORCE:
