# Every target that needs packages installs them into .venv first, and only once: a
# stamp file in .venv is written when an installation has finished, and is out of date
# when setup.cfg or pyproject.toml is newer. Nothing is compiled ahead, which halves the
# time: Python compiles what it imports, and must be allowed to keep it. TensorFlow takes
# 5 seconds to import then, and 12 where it is compiled each time.

unexport PYTHONDONTWRITEBYTECODE

SUITABLE := import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	"$$python" -c '$(SUITABLE)' >/dev/null 2>&1 && echo "$$python" && break; done)

RUN := .venv/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check -q -q
# One process of tests for each core, four at most; one more for tests that wait for
# programs. What XLA has compiled stays in memory until a process ends, up to 9 GB in one
# that runs half of the tests, and a machine without free memory crawls. So the tests run
# in several parts, each in new processes (docs/design/0056).
WORKERS := $(shell cores=$$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN); \
	echo $$((cores < 4 ? cores : 4)))
PYTEST := $(RUN) -m pytest --numprocesses $(WORKERS) --dist loadfile
PYTEST_WAITING := $(PYTEST) --numprocesses $(shell echo $$(($(WORKERS) + 1)))
# XLA compiles most tests for longer than they run; this makes it half of that.
QUICKLY := --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true \
	--xla_cpu_use_fusion_emitters=false
PORTABLE := tests/layers tests/builders tests/decoding
EXAMPLES := kseq/layers kseq/builders kseq/decoding
OF_TEXT := tests/text tests/training tests/tuning
# In builders nearly all is the same on every backend: these files run what is not.
BRIEFLY := tests/layers tests/decoding $(addprefix tests/builders/test_,every_shape.py \
	generation.py streaming.py)

export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: help demo test test-thorough test-torch test-lowest docs bench dist lint format clean
.DEFAULT_GOAL := help

help:
	@echo "make demo        learn to pronounce English words, and show the result in demo/"
	@echo "make test        lint, all tests on TensorFlow, the portable ones on JAX"
	@echo "make test-thorough  the cases of the same tests that make test leaves out"
	@echo "make test-torch  the portable tests on PyTorch: layers, builders, decoding"
	@echo "make test-lowest  a smoke test with the lowest versions that setup.cfg allows"
	@echo "make docs        builds the documentation site in build/docs"
	@echo "make dist        builds wheel and sdist in dist, and tries each in a bare environment"
	@echo "make bench       times kseq beside its peers (Keras, KerasHub, PyTorch)"
	@echo "make lint        check style and format"
	@echo "make format      mend style and format"
	@echo "make clean       delete .venv, demo/ and the caches"
	@echo "Each sets up .venv first if need be. To choose the Python: make test PYTHON=..."

demo: .venv/recipes.stamp
	$(RUN) recipes/grapheme_to_phoneme.py --output demo
	$(RUN) recipes/grapheme_to_phoneme.py --output demo --say sequence attention kseq

test test-thorough: export XLA_FLAGS ?= $(QUICKLY)
define in_parts
	$(PYTEST) -m "$(1)" tests/builders
	$(PYTEST) -m "$(1)" tests/layers tests/decoding
	$(PYTEST_WAITING) -m "$(1)" $(OF_TEXT)
	$(PYTEST) -m "$(1)" tests/recipes
	$(PYTEST) -m "$(1)" $(addprefix --ignore ,$(PORTABLE) $(OF_TEXT) tests/recipes)
endef

test: lint
	$(call in_parts,not thorough)
	KERAS_BACKEND=jax $(PYTEST) -m "not thorough" $(BRIEFLY) $(EXAMPLES)

test-thorough: .venv/test.stamp
	$(call in_parts,thorough)
	KERAS_BACKEND=jax $(PYTEST) -m thorough tests/builders
	KERAS_BACKEND=jax $(PYTEST) -m thorough tests/layers
	KERAS_BACKEND=jax $(PYTEST) -m thorough tests/decoding $(EXAMPLES)
	KERAS_BACKEND=jax $(PYTEST) $(filter-out $(BRIEFLY),$(wildcard tests/builders/*.py))

test-torch: .venv/test.stamp .venv/torch.stamp
	KERAS_BACKEND=torch $(PYTEST) $(PORTABLE) $(EXAMPLES)

docs: .venv/docs.stamp
	$(RUN) -m sphinx -b html --fail-on-warning --keep-going -q docs build/docs
	@echo "Open build/docs/index.html"

# Each file is installed by itself, and runs what a package index shows of kseq.
dist: .venv/dist.stamp
	rm -rf dist build/bare
	$(RUN) -m build --outdir dist
	$(RUN) -m twine check --strict dist/*
	for file in dist/*; do \
		"$(PYTHON)" -m venv --clear build/bare && \
		build/bare/bin/python -m pip install -q -q "$$file" && \
		(cd build && bare/bin/python -W error::UserWarning ../tests/smoke.py) || exit 1; \
	done

# The smoke test with the lowest versions that setup.cfg allows.
test-lowest: .venv/created
	"$(PYTHON)" -m venv --clear build/lowest
	$(RUN) tests/lowest.py > build/lowest/constraints.txt
	build/lowest/bin/python -m pip install -q -q -c build/lowest/constraints.txt .
	cd build && lowest/bin/python -W error::UserWarning ../tests/smoke.py

bench: .venv/benchmarks.stamp
	$(RUN) benchmarks/overview.py

lint: .venv/test.stamp
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy

format: .venv/test.stamp
	$(RUN) -m ruff check --fix
	$(RUN) -m ruff format

clean:
	rm -rf .venv demo build dist *.egg-info .pytest_cache .ruff_cache
	find kseq recipes tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

.venv/created:
	@"$(PYTHON)" -c '$(SUITABLE)' >/dev/null 2>&1 || { \
		echo "kseq needs Python 3.11, 3.12 or 3.13 with its venv module (on Debian and"; \
		echo "Ubuntu: apt install python3-venv). Received: PYTHON=$(PYTHON)"; \
		echo "Name one that runs: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; \
		exit 1; } >&2
	@echo "Creating .venv with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv .venv
	@touch $@

# One PyTorch, exactly: pip then takes a CPU build where it finds one for this version.
.venv/benchmarks.stamp: SELECTED = '.[benchmarks]' torch==2.13.0
.venv/torch.stamp: SELECTED = '.[test,torch]' torch==2.13.0
.venv/%.stamp: SELECTED = '.[$*]'
.venv/%.stamp: .venv/created setup.cfg pyproject.toml
	@echo "Installing kseq[$*] into .venv (about a minute, the first time)"
	@$(PIP) install --no-compile --editable $(SELECTED)
	@touch $@
