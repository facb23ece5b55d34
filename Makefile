# edgedns: `make run` shows it, `make test` tests all of it. Each sets itself up on Debian 12 with Python 3.11, gcc and make.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
TESTED := $(VENV)/.installed-tests

.PHONY: run test test-long bench lint clean

run: $(STAMP)
	$(BIN)/edgedns demo

test: $(TESTED) lint
	tools/packages --install
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not long" $(PYTEST)

# Where there is no wheel of atheris its one test is skipped.
test-long: $(TESTED)
	tools/packages --install
	-$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -e '.[fuzz]'
	$(BIN)/python -m pytest -m long --timeout 3600 $(PYTEST)

# CPU per query beside NSD, Knot, gdnsd, PowerDNS and BIND: some ten minutes, BENCH="--rounds 3" for fewer.
bench: $(TESTED)
	tools/packages --bench --install
	$(BIN)/python -m tests.bench.peers $(BENCH)

lint: $(TESTED)
	$(BIN)/ruff check .
	$(BIN)/mypy --strict

$(STAMP): pyproject.toml setup.py $(wildcard edgedns/engine/_fastpath*.[ch]) edgedns/bench/_volley.c tools/install
	tools/install $(PYTHON) $(VENV)
	touch $@

$(TESTED): $(STAMP)
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
