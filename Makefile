# One command for each daily act; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
# constraints.txt is the whole resolved set, so nothing is left to resolve; bytecode is made when first imported.
PIP := --quiet --no-deps --no-compile

.PHONY: test-edge test-monitoring test-tracking help install run stop test test-slow test-e2e test-s3 test-faults test-tune lint types format docs serve ui bench bench-train bench-codec study bench-check clean constraints test-serve test-browser bench-serve bench-data bench-scale bench-edge test-schedule manifests test-launch images test-containers stack stack-stop test-stack stack-programs

help:  ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## make .venv with everything pinned

$(STAMP): pyproject.toml constraints.txt requirements-nodeps.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing. Install Python 3.11, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(PIP) --requirement constraints.txt torch==2.13.0 --editable .
	$(BIN)/pip install $(PIP) --require-hashes --requirement requirements-nodeps.txt
	@command -v npm >/dev/null || dpkg -s sonic-pi-samples >/dev/null 2>&1 \
	  || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq sonic-pi-samples >/dev/null; } \
	  || echo "Notice: neither npm nor the Debian package sonic-pi-samples is here; the demo will do without recorded sounds."
	touch $(STAMP)

run: install  ## the whole pipeline on this machine, ending in a live endpoint
	$(BIN)/sonarc run $(ARGS)

stop:  ## end the endpoint that `make run` left
	@if test -x $(BIN)/sonarc; then $(BIN)/sonarc stop; else echo "Nothing is installed here, so nothing runs."; fi

test: install  ## lint, types and the fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest $(ARGS)

test-slow: install  ## the tests that take minutes
	$(BIN)/pytest -m slow $(ARGS)

test-e2e: install  ## whole pipelines: first, cached, refused and failing runs
	$(BIN)/pytest -m "slow or not slow" tests/e2e $(ARGS)

test-s3: install  ## the pipeline in a bucket of a real S3 server that stumbles
	$(BIN)/pytest -m "slow or not slow" tests/e2e/test_s3.py tests/contracts/test_store_s3.py $(ARGS)

test-faults: install  ## trainings that lose a worker, a driver, a raylet or a host (the last two as root)
	$(BIN)/pytest -m slow -n 0 tests/faults tests/ray_jobs $(ARGS)

test-tune: install  ## searches over a real PostgreSQL, whose server or coordinators are killed
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq postgresql >/dev/null; } \
	  || { echo "PostgreSQL is missing. Install Debian's package postgresql."; exit 1; }
	$(BIN)/pytest -m "slow or not slow" -n 0 tests/tuning tests/faults/test_tuning_faults.py $(ARGS)

test-schedule: install  ## schedules over a real PostgreSQL, keepers killed, and a month of real retrains
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq postgresql >/dev/null; } \
	  || { echo "PostgreSQL is missing. Install Debian's package postgresql."; exit 1; }
	$(BIN)/pytest -m "slow or not slow" -n 0 tests/pipelines/test_cron.py tests/pipelines/test_schedules.py \
	  tests/tracking/test_retrain.py tests/e2e/test_month.py $(ARGS)

test-serve: install  ## the endpoint: every answer to made-up requests, and a real server under load, switched and killed
	$(BIN)/pytest -m "slow or not slow" tests/serving $(ARGS)

test-browser: install  ## the playground in headless Chromium
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	  || { echo "Chromium is missing. Install Debian's package chromium."; exit 1; }
	$(BIN)/pytest -m slow -n 0 tests/serving/test_playground.py $(ARGS)

test-edge: install  ## a model exported to ONNX: its player, and its page in headless Chromium
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	  || { echo "Chromium is missing. Install Debian's package chromium."; exit 1; }
	@command -v npm >/dev/null || { echo "npm is missing: it gives the page onnxruntime-web."; exit 1; }
	$(BIN)/pytest -m "slow or not slow" -n 0 tests/edge tests/serving/test_edge_page.py $(ARGS)

test-monitoring: install  ## manifests, dashboard and alert rules, with promtool
	@command -v promtool >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq prometheus >/dev/null; } \
	  || { echo "promtool is missing. Install Debian's package prometheus."; exit 1; }
	$(BIN)/pytest -m "slow or not slow" -n 0 tests/infra/test_monitoring.py tests/infra/test_manifests.py tests/infra/test_profiles.py $(ARGS)

test-tracking: install  ## the tracking server of a cluster: accounts, a real PostgreSQL, a bucket
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq postgresql >/dev/null; } \
	  || { echo "PostgreSQL is missing. Install Debian's package postgresql."; exit 1; }
	$(BIN)/pytest -m "slow or not slow" -n 0 tests/infra/test_tracking_server.py $(ARGS)

stack-programs:
	@{ ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null; } && command -v prometheus >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq postgresql prometheus >/dev/null; } \
	  || { echo "PostgreSQL or Prometheus is missing. Install Debian's packages postgresql and prometheus."; exit 1; }

stack: install stack-programs  ## the server profile: PostgreSQL, S3, MLflow, two Ray nodes, Prometheus, who starts the endpoint
	$(BIN)/python -m infra.stack up $(ARGS)

stack-stop: install  ## end what `make stack` started; data stay
	$(BIN)/python -m infra.stack down $(ARGS)

test-stack: install stack-programs  ## the pipeline against the server profile, a request, a query, a rollback
	$(BIN)/pytest -m "slow or not slow" -n 0 tests/infra/test_supervisor.py tests/infra/test_stack.py $(ARGS)

manifests: install  ## what a cluster is given, rendered and validated, into build/manifests/
	$(BIN)/python -m infra.check $(ARGS)

test-launch: install  ## stages on Ray: a Kubernetes API that stumbles, a job run by it, and a real Ray's jobs API
	$(BIN)/pytest -m "slow or not slow" -n 0 tests/components $(ARGS)

test-containers: images  ## the images: what is in them, and the whole pipeline run in them (as root, or with docker)
	$(BIN)/pytest -m "slow or not slow" -n 0 tests/infra/test_images.py tests/infra/test_containers.py

lint: install  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install  ## mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install  ## static types
	$(BIN)/mypy

docs: install  ## build the documentation, strictly, into site/
	$(BIN)/mkdocs build --strict

serve: install  ## serve the champion of the registry
	$(BIN)/sonarc serve $(ARGS)

ui: install  ## MLflow's pages over the local runs
	$(BIN)/sonarc ui $(ARGS)

bench: install  ## measure, into bench/*.json
	$(BIN)/python -m sonarc.bench $(ARGS)

bench-train: install  ## clips a second of pre-training and ARC, into bench/train.json
	$(BIN)/python -m sonarc.bench train

bench-codec: install  ## what the codec keeps of held-out clips, into bench/codec.json
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[listening]"
	$(BIN)/python -m sonarc.bench codec $(ARGS)

bench-serve: install  ## the endpoint against the bare model, in a crowd, a switch and a crash, into bench/serve.json; 20 minutes
	$(BIN)/python -m serving.bench $(ARGS)

bench-data: install  ## ingest against its limit and lhotse, its memory, and the loader, into bench/data.json
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[bench]"
	$(BIN)/python -m sonarc.bench data

bench-scale: install  ## what Ray Train, a second worker and a kill cost, into bench/scale.json
	$(BIN)/python -m sonarc.bench scale

study: install  ## base, ARC and its ablations trained and scored alike, into docs/study.*; hours, resumable
	$(BIN)/sonarc study --out docs $(ARGS)

images: install  ## the images pipeline, worker and serve, with docker, podman or buildah, into build/images/images.json
	@command -v docker >/dev/null && docker info >/dev/null 2>&1 || command -v podman >/dev/null || command -v buildah >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq podman runc mmdebstrap >/dev/null; } \
	  || { echo "Neither docker, podman nor buildah is here. Install Debian's packages podman, runc and mmdebstrap."; exit 1; }
	$(BIN)/python -m infra.images $(ARGS)

bench-edge: install  ## the exported model's size, memory, speed and quality, into bench/edge.json
	$(BIN)/python -m sonarc.bench edge $(ARGS)

bench-check: install  ## fail where a committed figure misses what was wanted
	$(BIN)/python -m sonarc.bench --check

constraints:  ## resolve the pinned set anew, into constraints.txt
	rm -rf build/resolve && $(PYTHON) -m venv build/resolve
	build/resolve/bin/pip install --quiet torch==2.13.0 ".[dev,hub]"
	{ sed -n '/^#/p' constraints.txt; build/resolve/bin/pip freeze --exclude sonarc | sed 's/+cpu$$//'; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

clean: stop  ## remove what was built here; the user's cache folder stays
	rm -rf $(VENV) runs site build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
