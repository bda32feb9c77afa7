# One command each. Everything is installed into .venv of this folder; nothing else on the machine is touched.
PYTHON ?= python3
BIN := .venv/bin
BUILD := build
EXTRAS := prefect,review,s3,perceptual,test,docs,dev
DEMO_MANIFEST ?= examples/fluent/manifest.jsonl
DEMO_OUTPUT ?= $(BUILD)/demo
# Arguments of the speed benchmarks: --full
BENCH ?=
# Arguments of the quality benchmark: --full, --search, --base sdxl --device cuda:0
QUALITY ?=
# Arguments of the report benchmark: --pairs 2000
REPORT_BENCH ?=
# Arguments of bench-orchestration: --pairs 100,1000 --s3 '' --rows 0
ORCHESTRATION ?=
# A Prefect home of its own: the demo never talks to a studio's server.
ISOLATED = mkdir -p $(BUILD)/prefect && env -u PREFECT_API_URL -u PREFECT_PROFILE PREFECT_HOME=$(CURDIR)/$(BUILD)/prefect DO_NOT_TRACK=1

.PHONY: help install demo demo-figures test clouds check docs chaos bench bench-orchestration report-bench quality catalogue base base-rehearsal base-eval examples clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: .venv/installed ## install into .venv

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: install ## train, draw and score the example pairs; ends with the report's path
	@$(ISOLATED) $(BIN)/pairlora run $(DEMO_MANIFEST) --base embedded --output $(DEMO_OUTPUT) \
		--set evaluate.perceptual=true --set execution.pack_size=2

demo-figures: install ## figures of the demo's report against their targets
	@$(BIN)/python -m benchmarks.demo_figures $(DEMO_OUTPUT)

test: install ## all tests; processes that they need are started by them
	$(ISOLATED) OMP_NUM_THREADS=1 $(BIN)/python -m pytest

clouds: install ## the tests of the store on servers of Google's and Microsoft's protocols; needs node and npm, half a minute
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[clouds]'
	npm install --silent --no-audit --no-fund --prefix $(BUILD)/azurite azurite@3.37.0
	$(BIN)/python -m pytest -m clouds

docs: install ## the documentation as pages in build/site; a link that leads nowhere fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

check: install ## format, lint, types, dependency arrows, documentation
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory docs

chaos: install ## 25 kills of flow, workers, S3 server and Prefect server over one manifest, a cluster that loses a machine, and 12 kills over 200 assets (some minutes)
	$(ISOLATED) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_chaos.py tests/test_cluster.py tests/test_catalogue_chaos.py -m chaos -s

bench: install ## time and memory of training and sampling, side by side; some minutes, BENCH=--full takes more rounds
	$(BIN)/python -m benchmarks.machine
	$(BIN)/python -m benchmarks.sampling_speed $(BENCH)
	$(BIN)/python -m benchmarks.training_speed $(BENCH)
	$(BIN)/python -m benchmarks.updates $(BENCH)

report-bench: install ## build the report of 500 pairs, open it in Chromium, weigh it (some minutes)
	PYTHONPATH=tests $(BIN)/python -m benchmarks.report_pages $(REPORT_BENCH)

bench-orchestration: install ## what runs of 100 to 10,000 pairs cost beside the models, on a folder and on S3 (half an hour)
	$(ISOLATED) OMP_NUM_THREADS=1 PREFECT_LOGGING_LEVEL=WARNING $(BIN)/python -m benchmarks.orchestration $(ORCHESTRATION)

quality: install ## does it work? every arm on pairs with a ground truth; tables, curves and sheets in build/quality
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[embedded-base]'
	bash embedded_base/build.sh $(BUILD)/base pictures
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.quality --node-modules $(BUILD)/base/node_modules --out $(BUILD)/quality --workers 2 $(QUALITY)

catalogue: demo ## 50 drawings that no adapter was trained on, in three styles of the demo; figures and a report in build/catalogue
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[embedded-base]'
	bash embedded_base/build.sh $(BUILD)/base pictures
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.catalogue --node-modules $(BUILD)/base/node_modules --store $(DEMO_OUTPUT) --out $(BUILD)/catalogue

base: install ## rebuild the embedded base from the npm packages (three hours on two fast cores)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[embedded-base]'
	bash embedded_base/build.sh $(BUILD)/base

base-rehearsal: install ## the same with 50 steps a training, into build/rehearsal: does the one command still arrive?
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[embedded-base]'
	STEPS=50 WEIGHTS=$(BUILD)/rehearsal/weights SHEETS=$(BUILD)/rehearsal/sheets bash embedded_base/build.sh $(BUILD)/rehearsal

base-eval: demo ## measure the shipped base against the real drawings, and what it makes of the example pairs
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[embedded-base]'
	bash embedded_base/build.sh $(BUILD)/base pictures
	$(BIN)/python -m embedded_base.evaluate --work $(BUILD)/base --demo $(DEMO_OUTPUT)

examples: install ## write examples/fluent again from the npm packages
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[embedded-base]'
	bash embedded_base/build.sh $(BUILD)/base pictures
	$(BIN)/python -m embedded_base.write_examples --node-modules $(BUILD)/base/node_modules

clean: ## remove what runs and tests made; the virtual environment stays
	rm -rf $(BUILD) dist .pytest_cache .ruff_cache
