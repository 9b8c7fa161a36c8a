.DEFAULT_GOAL := help
.PHONY: help service render test lint format types proof combinations updates chaos bench pins clean

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed

# uv trusts the certificates that pip and git trust, and fetches no Python.
export UV_SYSTEM_CERTS ?= true
export UV_PYTHON_DOWNLOADS := never

DEST ?= build/my-service
PORT ?= 8000
# Answers, without spaces inside: make render DEST=build/shop DATA='databases=[postgresql] features=[projects]'
DATA ?=
ARGS ?=
COPY = $(BIN)/copier copy --trust --defaults --vcs-ref=HEAD $(foreach answer,$(DATA),--data '$(answer)')

help: ## Show what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1|\2/p' Makefile | while IFS='|' read -r name text; do printf '  %-12s %s\n' $$name "$$text"; done

service: $(READY) ## Make the minimal service in DEST and serve it on PORT
	@test -e '$(DEST)/.copier-answers.yml' || $(COPY) --quiet '$(CURDIR)' '$(DEST)'
	@test -x '$(DEST)/$(BIN)/app' || { echo 'The service has no environment: see above, then run make setup in $(DEST).' >&2; exit 1; }
	@cd '$(DEST)' && exec $(BIN)/app serve --port $(PORT)

render: $(READY) ## Render into DEST with the answers of DATA, and install nothing
	@$(COPY) --skip-tasks '$(CURDIR)' '$(DEST)'

test: $(READY) ## Run all tests; with ARGS='-k hooks' some of them
	@$(BIN)/pytest --numprocesses=auto --dist=loadgroup $(ARGS)

lint: $(READY) ## Look for mistakes in hooks, tests and tools
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check hooks tests tools

format: $(READY) ## Format hooks, tests and tools
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format hooks tests tools

types: $(READY) ## Check the types of hooks, tests and tools
	@$(BIN)/mypy

proof: $(READY) ## Prove for every combination what a service promises; ARGS=--write for the page
	@$(BIN)/python tests/proof/report.py $(ARGS)

combinations: $(READY) ## Make each pair of answers and let it prove itself; ARGS='--shard 1/4'
	@$(BIN)/pytest -m nightly --numprocesses=auto --dist=load tests/combinations $(ARGS)

updates: $(READY) ## Update services between all pairs of answers; ARGS='--shard 1/4 --jobs 2'
	@$(BIN)/python tests/updates/cover.py $(ARGS)

chaos: $(READY) ## Kill workers, web processes and brokers, and count jobs; ARGS='--seed 7 --write'
	@$(BIN)/python tests/chaos/storm.py $(ARGS)

bench: $(READY) ## Measure: rendering, starting, requests per second
	@$(BIN)/python tests/benchmarks/run.py $(ARGS)

pins: $(READY) ## Take the newest versions that fit, for services and for these tools
	@$(BIN)/python tools/pins.py

clean: ## Remove what was made here
	@rm -rf .venv build .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.13 ...")'
	@rm -rf .venv
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.txt)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement requirements.txt
	@touch $(READY)
