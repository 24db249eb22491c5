# Everything starts here: each target builds .venv first, from nothing but make and Python >= 3.10.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
UV := $(BIN)/uv
UV_INSTALL := $(UV) pip install --quiet --compile-bytecode --python $(BIN)/python
PYTEST := $(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist worksteal
SEED ?= $(shell date +%s)
CHECKED := $(wildcard batchscore tests data docs jobs benchmarks tools)

# Where it is set, every process compiles what it imports again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env demo test test-fast test-random coverage bench faults docs check lint format constraints clean

help:
	@echo "make demo         score the sample flights"
	@echo "make test         all checks, then all tests"
	@echo "make test-fast    tests of single parts, without whole jobs: about 80 seconds on two cores"
	@echo "make test-random  all tests in a random order (the same again: SEED=N)"
	@echo "make coverage     all tests, and which lines they reach; takes half as long again"
	@echo "make bench        compare scoring and drift profiling with their peers; installs them into .bench"
	@echo "make faults       kill 200 runs at random, damage 1,000 models of each format, and more"
	@echo "make docs         build the documentation site into out/site"
	@echo "make check        formatter, linter, types, import rules"
	@echo "make lint         formatter and linter only"
	@echo "make format       let the formatter and the linter fix what they can"
	@echo "make constraints  pin the dependencies again (all to the newest: ARGS=--upgrade)"
	@echo "make clean        remove .venv, .bench and caches; what was scored, out/, stays"

env: $(READY)

demo: $(READY)
	$(BIN)/batchscore run jobs/flight_delays/job.yaml

test: check
	$(PYTEST)

test-fast: $(READY)
	$(PYTEST) -m "not slow" --hypothesis-profile fast

test-random: $(READY)
	$(PYTEST) --shuffle $(SEED)

coverage: $(READY)
	$(PYTEST) --cov --cov-report=term

bench: $(READY)
	$(BIN)/python -m benchmarks.scoring_peers
	$(BIN)/python -m benchmarks.limits --only floor,cores,startup,help,overhead
	$(BIN)/python -m benchmarks.kernels
	$(BIN)/python -m benchmarks.profile_cost
	$(BIN)/python -m benchmarks.text_cost
	$(BIN)/python -m benchmarks.drift_peers
	$(BIN)/python -m benchmarks.conformance

faults: $(READY)
	$(BIN)/python -m tests.faults --kills 200
	$(BIN)/python -m tests.faults.starts
	$(BIN)/python -m tests.faults.asleep
	$(BIN)/python -m tests.faults.backfills
	$(BIN)/python -m tests.faults.cutoff
	$(BIN)/python -m tests.faults.halted
	$(BIN)/python -m tests.faults.models

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open out/site/index.html, or run: $(BIN)/mkdocs serve"

check: lint
	$(BIN)/mypy typings $(CHECKED)
	$(BIN)/lint-imports

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: | $(UV)
	$(UV) pip compile --quiet --universal --python-version 3.10 --generate-hashes \
		--extra s3 --extra gcs --extra dataflow --extra xgboost --extra lightgbm \
		--extra catboost --extra onnx --extra sklearn --extra keras \
		--extra prometheus --extra openlineage --group dev --group docs --output-file constraints.txt $(ARGS) pyproject.toml

clean:
	rm -rf .venv .bench .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf .coverage .coverage.* dist
	find $(CHECKED) -name __pycache__ -type d -prune \
		-exec rm -rf {} +

$(READY): constraints.txt pyproject.toml | $(UV)
	@echo "Installing the pinned dependencies into .venv; the first time this downloads about 3 GB."
	@$(UV_INSTALL) --require-hashes --requirement constraints.txt
	@$(UV_INSTALL) --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q batchscore
	@touch $@

# uv, too, is installed as constraints.txt pins it: its entry alone, hashes and all.
$(UV):
	@python=$$(sh tools/find_python.sh "$(PYTHON)") && "$$python" -m venv --clear .venv
	@awk '/^[^ ]/ {mine = /^uv==/} mine' constraints.txt > .venv/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes --requirement .venv/uv.txt
