# ringfence: `make demo` shows it, `make test` tests it; both make their own virtual environment first.
# PYTHON=python3.12 chooses another interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml requirements.lock | cksum | cut -d' ' -f1)
CODE := ringfence collectors processors sinks bench tests
OUT ?= demo-out
LOCK = $(BIN)/python -m piptools compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-header --no-emit-index-url --no-emit-trusted-host --no-emit-find-links
FUZZ_STAMP := $(VENV)/.fuzz-$(shell cat requirements-fuzz.lock | cksum | cut -d' ' -f1)
FUZZ_RUNS ?= 2000000
FUZZ_SECONDS ?= 600
FUZZ_SEED ?= 0

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check format golden docs bench fuzz fuzz-ready lock clean

help: ## print this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# pip of the system installs into the environment, so neither ensurepip nor python3-venv's pip is needed
$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit("ringfence needs Python 3.11 or newer, this is %d.%d; try make PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(VENV)
	@echo "Installing what requirements.lock names into $(VENV) ..."
	@$(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check install --quiet --require-hashes -r requirements.lock
	@$(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check install --quiet --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/.installed-*; touch $@

demo: $(STAMP) ## run the story of the demo, everything embedded; results are left in demo-out/
	@$(BIN)/ringfence demo --out $(OUT)

test: $(STAMP) ## run the tests; what is not on this machine is skipped and says how to get it
	$(BIN)/python -m pytest $(TESTS)

test-all: export RINGFENCE_LONG = 1
test-all: test ## run the long forms too

check: $(STAMP) ## lint, format, types, and drift of generated docs
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/python -m ringfence.reference --check

format: $(STAMP) ## format the code
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

golden: $(STAMP) ## write the expected files of the golden cases anew; review the difference
	$(BIN)/python -m pytest tests/collectors/test_golden.py --update-golden
	git diff --stat -- tests

docs: $(STAMP) ## write the generated parts of the docs anew
	$(BIN)/python -m ringfence.reference

bench: $(STAMP) ## events per CPU-second and peak memory, as ratios against other code; SIGMA_RULES=DIR (SigmaHQ) for rules and Tenzir
	$(BIN)/python -m bench $(if $(SIGMA_RULES),--sigma-rules $(SIGMA_RULES))

fuzz: $(FUZZ_STAMP) ## fuzz every decoder, FUZZ_RUNS inputs or FUZZ_SECONDS each; FORMATS="eve pflog" for some
	$(BIN)/python -m tests.fuzz --runs $(FUZZ_RUNS) --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED) $(if $(FORMATS),--formats $(FORMATS))

fuzz-ready: $(FUZZ_STAMP)

$(FUZZ_STAMP): $(STAMP) requirements-fuzz.lock
	@$(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check install --quiet --require-hashes -r requirements-fuzz.lock
	@rm -f $(VENV)/.fuzz-*; touch $@

lock: $(STAMP) ## resolve dependencies anew into requirements.lock and requirements-fuzz.lock
	$(PYTHON) -m pip --python $(BIN)/python install --quiet pip-tools
	$(LOCK) --output-file requirements.lock pyproject.toml requirements.in
	$(LOCK) --output-file requirements-fuzz.lock requirements-fuzz.in

clean: ## remove the environment and what tests and demo left
	rm -rf $(VENV) demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis .fuzz
