# The two commands that matter: `make demo` and `make test`. `make help` lists the rest.
.DEFAULT_GOAL := help
.PHONY: demo test test-all test-oldest lint bench clean help lock

# The newest interpreter that really runs (a shim may exist and fail), pyenv's own included.
PYTHON ?= $(shell for p in python3.13 $$(pyenv root 2>/dev/null)/versions/3.13.*/bin/python3 \
                           python3.12 $$(pyenv root 2>/dev/null)/versions/3.12.*/bin/python3 python3.11 python3; do \
                    "$$p" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
BIN := .venv/bin
ENVIRONMENT := .venv/runtime.stamp
DEVELOPMENT := .venv/development.stamp
OLDEST := .venv-oldest/stamp

demo: $(ENVIRONMENT)  ## train, evaluate and register one model over three hospitals
	@$(BIN)/lepton demo

test: $(DEVELOPMENT)  ## run the default test suite (under six minutes on two cores)
	$(BIN)/pytest -n auto --dist loadfile -m "not slow"

test-all: $(DEVELOPMENT)  ## run every test, those with servers of their own included
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

test-oldest: $(OLDEST)  ## run the comparison with XGBoost against the oldest release that we support
	.venv-oldest/bin/python -m pytest -n auto tests/parity -m "not slow"
	LEPTON_OTHER_PYTHON=$(CURDIR)/.venv-oldest/bin/python $(BIN)/pytest -n 0 tests/boosting/test_model_file.py -k another_release

lint: $(DEVELOPMENT)  ## style, types and the dependency rule
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(DEVELOPMENT)  ## measure against stock XGBoost in the same run
	$(BIN)/python benchmarks/engine.py
	for what in memory binning first quality; do $(BIN)/python benchmarks/engine_costs.py $$what || exit 1; done
	$(BIN)/python benchmarks/secure_sum.py

clean:  ## remove the environments, caches and everything that runs have written
	rm -rf .venv .venv-oldest var build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

lock:  ## resolve the dependencies anew (needs uv)
	uv pip compile --quiet pyproject.toml --group build --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-annotate --no-header --upgrade -o locks/dev.txt
	uv pip compile --quiet pyproject.toml --group build -c locks/dev.txt --universal --python-version 3.11 \
	  --generate-hashes --no-annotate --no-header --upgrade -o locks/runtime.txt

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Lepton needs Python 3.11 or newer: install one, or name it: make PYTHON=/path/to/python3"; exit 1; }
	@echo "  environment       .venv from $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv

$(ENVIRONMENT): locks/runtime.txt pyproject.toml | .venv/bin/python
	@echo "  packages          $$(grep -c '^[a-z]' locks/runtime.txt) pinned and hashed: a minute or two the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/runtime.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python examples/healthcare/make_hospitals.py >/dev/null
	@touch $@

$(DEVELOPMENT): locks/dev.txt $(ENVIRONMENT)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/dev.txt
	@touch $@

# The same environment with one package replaced: its own site-packages come first, then those of .venv.
$(OLDEST): locks/oldest.txt $(DEVELOPMENT)
	@$(BIN)/python -m venv .venv-oldest
	@.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r locks/oldest.txt
	@.venv-oldest/bin/python -c "import pathlib, sysconfig; p = sysconfig.get_path('purelib'); \
	  pathlib.Path(p, 'base.pth').write_text(p.replace('.venv-oldest', '.venv') + '\n' + str(pathlib.Path.cwd()) + '\n')"
	@touch $@
