# Every target makes the environment it needs, from nothing, with venv and pip. Variables you may set:
#   VENV    the environment (default .venv)          PYTHON  the interpreter to make it with (Python >= 3.11)
#   JOBS    pytest workers (default 2)               ARGS    extra arguments for pytest, accept or the benchmarks
# pip reads its own settings (PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL, ...), e.g. for a torch build without CUDA.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV ?= .venv
JOBS ?= 2
ARGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
CODE := interp probes steering refusalkit tests scripts $(wildcard benchmarks) $(wildcard notebooks)

# The build environment that pip makes for the project follows the constraints too (older and newer pip).
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
# pyright comes with its own sources: no look-up of newer ones.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
# OpenMP threads that spin while they wait make small models crawl on a machine that does something else besides.
export OMP_WAIT_POLICY := passive

.PHONY: help env env-dev env-docs demo test test-gpu families lint format types contracts notebooks accept bench bench-capture bench-probes bench-heads bench-steering soak interop docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

# --- environments: one folder, three sets of packages, one stamp each --------------------------------------------------

$(BIN)/python:
	@python="$$(sh scripts/find_python.sh)"; \
	echo "Creating $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv "$(VENV)" || { rm -rf "$(VENV)"; echo "python -m venv failed; on Debian and Ubuntu install python3-venv" >&2; exit 1; }

$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing refusalkit into $(VENV)"
	@$(PIP) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing refusalkit and its development tools into $(VENV)"
	@$(PIP) -e '.[dev]'
	@# repeng asks for a numpy below 2 and runs with a newer one, so it comes without what it asks for.
	@$(PIP) --no-deps repeng || echo "repeng could not be had: its tests are skipped"
	@touch $@ $(VENV)/.runtime

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing refusalkit and its documentation tools into $(VENV)"
	@$(PIP) -e '.[docs]'
	@touch $@ $(VENV)/.runtime

env: $(VENV)/.runtime ## make the environment to run refusalkit
env-dev: $(VENV)/.dev ## make the environment to work on refusalkit
env-docs: $(VENV)/.docs ## make the environment to build the site

# --- use ---------------------------------------------------------------------------------------------------------------

demo: $(VENV)/.runtime ## audit the shipped model and say where the report is
	@$(BIN)/refusalkit audit organism:chat --out demo
	@echo "Report: demo/report.html"

# --- checks --------------------------------------------------------------------------------------------------------------

test: $(VENV)/.dev ## run the tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) $(ARGS)

test-gpu: $(VENV)/.dev ## run the tests of the model families on a GPU, where there is one
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then \
		REFUSALKIT_TEST_DEVICE=cuda $(BIN)/python -m pytest tests/families $(ARGS); \
	else \
		echo "No GPU here (torch.cuda.is_available() is false): the families were not tested on one."; \
	fi

families: $(VENV)/.dev ## write docs/families.md: what was checked for every model family
	@OMP_NUM_THREADS=1 $(BIN)/python scripts/backend_matrix.py
	@OMP_NUM_THREADS=1 $(BIN)/python scripts/family_matrix.py

lint: $(VENV)/.dev contracts ## check style, import contracts and that notebooks are stripped
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/python scripts/notebooks.py check

format: $(VENV)/.dev ## apply the style: fixes, formatting, stripped notebooks
	@$(BIN)/ruff check --fix --exit-zero --quiet $(CODE)
	@$(BIN)/ruff format $(CODE)
	@$(BIN)/python scripts/notebooks.py strip

types: $(VENV)/.dev ## check types
	@$(BIN)/pyright --pythonpath $(BIN)/python

contracts: $(VENV)/.dev ## check which package imports which
	@$(BIN)/lint-imports --no-cache --no-logo

notebooks: $(VENV)/.dev ## execute every notebook from top to bottom
	@$(BIN)/python scripts/notebooks.py run

docs: $(VENV)/.docs ## build the site; a broken link or an undocumented public name fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@$(BIN)/python scripts/check_docs.py site
	@echo "Site: site/index.html"

accept: $(VENV)/.dev ## print the acceptance figures; one that misses its floor fails
	@$(BIN)/refusalkit accept $(ARGS)

bench: $(VENV)/.dev ## measure against peers and against the floor
	@$(BIN)/python -m benchmarks $(ARGS)

bench-capture: $(VENV)/.dev ## measure capture alone: speed against floor and peers, memory, the store
	@$(BIN)/python -m benchmarks capture memory store $(ARGS)

bench-probes: $(VENV)/.dev ## measure the sweep against the plain scikit-learn loop, and what a guard adds to generation
	@$(BIN)/python -m benchmarks probes guard $(ARGS)

bench-heads: $(VENV)/.dev ## measure sweeps over heads and attribution against full passes and TransformerLens
	@$(BIN)/python -m benchmarks heads $(ARGS)

bench-steering: $(VENV)/.dev ## measure steered generation against plain, and against repeng and steering-vectors if installed
	@$(BIN)/python -m benchmarks steering $(ARGS)

interop: $(VENV)/.dev ## prove our control vectors in llama.cpp, built once in .interop (about 12 minutes of a core)
	@$(BIN)/python scripts/llama_cpp.py
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/interop -rA $(ARGS)

soak: $(VENV)/.dev ## run the long tests that CI leaves out
	@$(BIN)/python -m pytest -m soak $(ARGS)

clean: ## remove caches and what the commands wrote (not the environment)
	@rm -rf demo site scratch .pytest_cache .ruff_cache .hypothesis
