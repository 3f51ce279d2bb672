# `make help` lists the targets. The two that a newcomer needs are `make demo` and `make test`.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Byte code belongs beside the packages: without it every start of a step takes 30 s more.
unexport PYTHONDONTWRITEBYTECODE
unexport PYTHONPYCACHEPREFIX
# What is on the caller's path must not hide what setup.sh installed.
unexport PYTHONPATH
unexport VIRTUAL_ENV

# Waiting threads sleep: spinning ones take the cores that another process needs, and small kernels become ten times slower.
export OMP_WAIT_POLICY ?= passive

VENV ?= $(CURDIR)/.venv
export GLITCHFLOW_VENV := $(VENV)
export PATH := $(VENV)/bin:$(PATH)

# The pipelines of the demo, in order, and what they are told.
DEMO_PIPELINES ?= simulate_pipeline preproc_pipeline training_pipeline inference_pipeline stream_pipeline \
    harm_pipeline
DEMO_OVERRIDES ?= conf/profile=demo run_name=demo
DEMO_SUMMARIES := annalisarun/demo/summary.json temp/demo/training/summary.json inference/demo stream/demo harm/demo

# Three test processes of one thread each for two cores: who tests servers, Ray or SLURM waits for other processes. A file
# stays in one process, so that what its tests share (whole runs, servers) is made once; tests/conftest.py puts the longest
# first.
TEST_JOBS ?= 3
PYTEST ?= OMP_NUM_THREADS=1 pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder

# ROOM="signal models": the tests of these rooms alone; a room is a folder tests/ROOM, or a file tests/test_ROOM.py.
ROOM :=
ROOM_TESTS = $(foreach room,$(ROOM),$(or $(wildcard tests/$(room) tests/test_$(room).py),$(error \
    ROOM=$(room) has no tests. Choose of: $(patsubst test_%.py,%,$(filter-out conftest.py,$(notdir $(wildcard tests/[a-z]*)))))))

MLFLOW_PORT ?= 5005
TENSORBOARD_PORT ?= 6000

.PHONY: help setup demo test fast gpu check format lint types bench docs mlflow tensorboard constraints clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

setup: ## make the environment (.venv) and the run folders; seconds when nothing has changed
	@./setup.sh

demo: setup ## the whole digital twin on simulated data, under 10 minutes on 2 cores
	@for pipeline in $(DEMO_PIPELINES); do \
	    printf '\n=== %s ===\n' "$$pipeline"; \
	    itwinai exec-pipeline +pipe_key=$$pipeline $(DEMO_OVERRIDES); \
	done
	@printf '\n=== what came out ===\n'
	@glitchflow show --newest $(DEMO_SUMMARIES)
	@glitchflow products "$$(ls -td stream/demo/*/ | head -n 1)"
	@echo 'Look further:'
	@echo '  pictures and tables       annalisarun/demo  QTdatasets/demo  inference/demo  stream/demo  harm/demo'
	@echo '  clean strain and vetoes   stream/demo (docs/products.md)'
	@echo '  make mlflow               runs and registered models on http://127.0.0.1:$(MLFLOW_PORT)'
	@echo '  make tensorboard          curves and pictures on http://127.0.0.1:$(TENSORBOARD_PORT)'
	@echo '  source .venv/bin/activate and run single pipelines and steps: docs/pipelines.md'

test: setup ## all tests (ROOM=signal for those of a room)
	@$(PYTEST) $(ROOM_TESTS)

fast: setup ## the tests that take no more than a few seconds each (ROOM=signal for those of a room)
	@$(PYTEST) -m 'not slow and not pipeline and not gpu' $(FAST) $(ROOM_TESTS)

gpu: setup ## the tests that need a GPU, on the one that is here
	@OMP_NUM_THREADS=1 pytest -m gpu

check: setup lint types test ## format, lint, types, import contracts, all tests

lint: setup
	@ruff format --check .
	@ruff check .
	@lint-imports
	@shellcheck setup.sh .ci/run docker-entrypoint.sh slurm/* benchmarks/gpu.sh
	@hadolint Dockerfile

types: setup
	@pyright

format: setup ## format the code and mend what the linter can mend
	@ruff format .
	@ruff check --fix .

bench: setup ## compare speed and memory with ml4gw and gwpy (BENCH="--only scan" for a part)
	@python benchmarks/run.py $(BENCH)

docs: setup ## the documentation as web pages in build/site
	@mkdocs build --strict --quiet --site-dir build/site
	@echo 'build/site/index.html'

# Both servers listen without authentication: on this machine only.
mlflow: setup ## MLflow on port 5005 (Ctrl-C ends it)
	@echo 'trainings: http://127.0.0.1:$(MLFLOW_PORT)/#/experiments?workflowType=machine_learning'
	@echo 'models:    http://127.0.0.1:$(MLFLOW_PORT)/#/models?workflowType=machine_learning'
	@MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow server --backend-store-uri sqlite:///mlflow.db \
	    --default-artifact-root ./artifacts --host 127.0.0.1 --port $(MLFLOW_PORT) --workers 1

tensorboard: setup ## TensorBoard on port 6000 (Ctrl-C ends it)
	@tensorboard --logdir tensorboard --host 127.0.0.1 --port $(TENSORBOARD_PORT) --samples_per_plugin images=100

constraints: ## resolve constraints.txt anew (for 3.11; 3.12 must fit), without addresses of registries
	@uv pip compile pyproject.toml --all-extras --python-version 3.11 --upgrade --quiet \
	    --no-emit-index-url --no-annotate --no-header --output-file constraints.txt
	@uv pip compile pyproject.toml --all-extras --python-version 3.12 --constraints constraints.txt --quiet \
	    --no-emit-index-url --no-annotate --no-header --output-file build/constraints-3.12.txt
	@diff constraints.txt build/constraints-3.12.txt

clean: ## remove what the demo wrote (the environment, the registry and other runs stay)
	@rm -rf annalisarun/demo datasets/demo datasets/demo-* QTdatasets/demo temp/demo inference/demo stream/demo harm/demo tensorboard/demo
	@rm -rf build/site outputs multirun cli.log
