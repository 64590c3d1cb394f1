# Targets for people and CI; `make help` lists them. `pretrain` and `test` do the whole set-up on a fresh machine and
# then their job. ARGS="..." is handed on, for example: make test ARGS="-k philox"; make pretrain ARGS="--max-steps 50".
SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help setup pretrain test check bench check-kernels docs gpu clean

PYTHON_IN_VENV := .venv/bin/python
JOBS ?= 2

# What numba, Triton and torch.compile have compiled stays with the checkout, so that second runs are fast.
export NUMBA_CACHE_DIR ?= $(CURDIR)/.cache/numba
export TRITON_CACHE_DIR ?= $(CURDIR)/.cache/triton
export TORCHINDUCTOR_CACHE_DIR ?= $(CURDIR)/.cache/inductor

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

setup:  ## system packages, .venv with the versions of constraints.txt, FFCV (FFCV=0: without it)
	@scripts/setup

# Passive: waiting threads sleep instead of spinning, or a laptop that also does something else trains at a tenth.
pretrain: setup  ## MoCo v2 + AugSelf on real photos, in minutes, to runs/demo/report.html
	OMP_WAIT_POLICY=$${OMP_WAIT_POLICY:-passive} $(PYTHON_IN_VENV) recipes/imagenet_moco_augself.py --preset demo --run runs/demo $(ARGS)

# One thread a process: two of them share the cores already. -P: kernels/ and recipes/ stay unimportable from here.
test: setup  ## all tests, on JOBS processes
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PYTHON_IN_VENV) -P -m pytest -n $(JOBS) --dist loadgroup $(ARGS)

check: setup  ## ruff and mypy
	@failed=0; for tool in "ruff check" mypy; do $(PYTHON_IN_VENV) -m $$tool || failed=1; done; exit $$failed

check-kernels: setup  ## compile every Triton kernel for GPUs that need not be here, and refuse slow code
	$(PYTHON_IN_VENV) -P -m fastaugself_kernels.check --jobs $(JOBS) $(ARGS)

bench: setup  ## views and photos per second here, beside the peers that are installed (RESULTS=folder keeps the records)
	for name in augment loader; do $(PYTHON_IN_VENV) -P -m fastaugself bench $$name \
	    $(if $(RESULTS),--json $(RESULTS)/$$name.json --plot $(RESULTS)/$$name.png) $(ARGS) || exit; done

docs: setup  ## these pages as HTML, to docs/_build/index.html; a broken link is an error
	$(PYTHON_IN_VENV) -m sphinx -W --keep-going -q docs docs/_build $(ARGS)

gpu: setup  ## the GPU round, in calls of nine minutes (PHOTOS=photos.beton), to results/<device>/; ARGS=--rehearse: on a CPU
	$(PYTHON_IN_VENV) scripts/gpu_round.py $(PHOTOS) $(ARGS)

clean:  ## forget .venv and everything compiled or cached (not runs/)
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info
