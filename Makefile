# `make help` lists the targets. Everything is installed into .venv; nothing outside is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo picture test test-all test-distill search lint format bench models clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

setup: $(READY) ## make .venv with the project and its development tools

demo: $(READY) ## compress a committed real model and show what it cost
	@mkdir -p out
	$(BIN)/python -m onnxslim models/fashion_vgg.onnx out/vgg_small.onnx --passes quant,lowrank \
	    --calib models/fashion_calib.npz --eval models/fashion_eval.npz --metric top1 --max-drop 0.02 \
	    --report out/vgg_small.json
	@ls -l models/fashion_vgg.onnx out/vgg_small.onnx

picture: demo ## draw the result of the demo for the README
	$(BIN)/python -m tests.bench.picture out/vgg_small.json docs/result.svg

test: $(READY) ## the everyday tests
	$(BIN)/python -m pytest -m "not slow"

test-distill: $(READY) ## the tests of distillation by gradient; installs torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[distill]'
	$(BIN)/python -m pytest tests/distill

test-all: $(READY) ## the everyday tests and the slow ones
	$(BIN)/python -m pytest

search: $(READY) ## the property tests on new random examples
	HYPOTHESIS_PROFILE=search $(BIN)/python -m pytest tests/property

lint: $(READY) ## ruff, mypy and pyright, all strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright

format: $(READY) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

models: $(READY) ## fetch and score every outside model (about 1.5 GB into ~/.cache)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,models]'
	$(BIN)/python models/fetch.py --all

bench: models ## measure everything in docs/RESULTS.md (an idle machine, about 20 minutes)
	$(BIN)/python -m tests.bench.run --out docs/RESULTS.md

clean: ## remove what these targets made
	rm -rf $(VENV) out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
