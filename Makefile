# Every command of the project. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

export PYTHONPATH := operator:.
export PYTHONDONTWRITEBYTECODE := 1
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -p no:cacheprovider
# The tests of one file in one process: on both cores, or more processes where they wait.
FILES := --dist loadfile --no-loadscope-reorder
BOTH := -n 2 $(FILES)
LAYERS := controlplane or kwok or e2e or chart or fetch or metrics
NAME ?= dev
CHARTS := charts/modelwright-crds charts/modelwright

help: ## This list
	@grep -hE '^[a-z0-9-]+:.*## ' Makefile | awk -F ':.*## ' '{ printf "  make %-18s %s\n", $$1, $$2 }'

setup: ## The development venv, linked as .venv
	@scripts/venv

generate: setup ## CRDs, JSON Schemas and reference from the types; the charts' copies and READMEs
	@$(BIN)/python -m modelwright crd generate
	@$(BIN)/python -m scripts.docgen generate
	@$(BIN)/python charts/sync.py
	@$(BIN)/python charts/readme.py
	@$(BIN)/python scripts/argocd.py
	@$(BIN)/python scripts/figures.py

verify: setup ## Lint, formatting, types, import rules, generated files, commit subjects
	@failed=0; \
	scripts/step "ruff check" $(BIN)/ruff check --no-cache . || failed=1; \
	scripts/step "ruff format" $(BIN)/ruff format --no-cache --check . || failed=1; \
	scripts/step "mypy" $(BIN)/mypy || failed=1; \
	scripts/step "import rules" $(BIN)/lint-imports --no-cache || failed=1; \
	scripts/step "generated CRDs" $(BIN)/python -m modelwright crd check || failed=1; \
	scripts/step "documentation pages" $(BIN)/python -m scripts.docgen check || failed=1; \
	scripts/step "charts' copies" $(BIN)/python charts/sync.py --check || failed=1; \
	scripts/step "Argo CD's entries" $(BIN)/python scripts/argocd.py --check || failed=1; \
	scripts/step "README's figures" $(BIN)/python scripts/figures.py --check || failed=1; \
	scripts/step "commit subjects" $(BIN)/python scripts/commits.py || failed=1; \
	scripts/step "peers (listed only)" $(BIN)/python scripts/peers.py stale || failed=1; \
	exit $$failed

test: ## Everything a change must pass; brings its own cluster up and takes it down
	@scripts/test

test-all: ## As test, with the longest tests whole
	@MODELWRIGHT_FULL_MATRIX=1 scripts/test

test-unit: setup ## Unit, property and wire tests: no cluster, no network
	@$(PYTEST) -q --timeout 300 -m "not ($(LAYERS))" --ignore tests/scale --ignore tests/e2e $(BOTH)

test-pythons: setup ## The plugin and the unit tests with Python 3.12 and 3.13 where they are; part of make test-all
	@$(BIN)/python scripts/pythons.py $(TESTS)

fuzz: setup ## Every parser of outside input, EXAMPLES=5000 of each (make test-unit tries 100)
	@$(PYTEST) -q --hypothesis-profile fuzz --timeout 3600 --durations 5 tests/fuzz

test-fetch: setup ## Each fetch scheme against a real server
	@$(PYTEST) -q -m "fetch and not e2e" --durations 5 tests/fetch

test-metrics: setup ## What rollouts measure, by a real Prometheus and a real Traefik
	@$(PYTEST) -q -m "metrics and not e2e" --durations 5 tests/metrics

test-chart: setup ## Charts and kustomize installs, rendered and compared
	@$(PYTEST) -q -m chart tests/packaging

test-controlplane: setup ## Against a real API server, started by the tests
	@$(PYTEST) -q -m "controlplane and not (kwok or e2e)" --durations 5 $(BOTH) tests/controlplane tests/devcluster

test-kwok: setup ## Against a control plane with simulated nodes, started by the tests
	@$(PYTEST) -q -m "kwok and not e2e" --durations 5 -n 3 $(FILES) tests/controlplane tests/devcluster tests/packaging

test-e2e: setup ## Real pods on the cluster that is up
	@failed=0; \
	$(PYTEST) -v -m "e2e and alone and not peer" --durations 10 tests/e2e || failed=1; \
	$(PYTEST) -v -m "e2e and not (alone or peer)" --durations 10 -n 3 $(FILES) tests/e2e || failed=1; \
	exit $$failed

test-cluster: setup ## The embedded cluster itself: one of its own is brought up, used, killed and taken down
	@$(PYTEST) -q -m e2e --durations 5 tests/devcluster

test-peers: setup ## On the cluster that is up: Argo CD, Flux, kube-router and Envoy Gateway themselves, PEER=argocd alone -> docs/figures/peers.json (twenty minutes to build)
	@$(BIN)/python scripts/peers.py run $(PEER)

demo: setup ## From nothing to rollouts on evidence: cluster, install, training, five versions, bad ones going back, drift closing the loop
	@$(BIN)/python -m demo

cluster-up: setup ## A real cluster on this machine, called NAME=dev; GATEWAY=envoy: Envoy Gateway beside Traefik (CLUSTER=existing or kind: see CONTRIBUTING.md)
	@$(BIN)/python -m devcluster up --name $(NAME) $(if $(GATEWAY),--gateway $(GATEWAY))

cluster-down: setup ## Take it down, with all it left on the machine
	@$(BIN)/python -m devcluster down --name $(NAME)

cluster-status: setup ## What is up, and how to reach it
	@$(BIN)/python -m devcluster status --name $(NAME)

docs: setup ## The documentation as a site -> build/docs; a warning is an error
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env $(SPHINXOPTS) -c docs . build/docs

tools: setup ## Build all programs of the cluster, helm and the base image into the cache
	@$(BIN)/python -m devcluster build

images: setup ## Build the five images
	@$(BIN)/python scripts/images.py

push: setup ## Build and push them, with the chart's values -> build/images.yaml (REGISTRY=..., TAG=0.1.0, PLAIN_HTTP=1); SIGN_KEY=release.key signs them
	@$(BIN)/python scripts/images.py --push "$(REGISTRY)" $(if $(TAG),--tag $(TAG)) $(if $(PLAIN_HTTP),--plain-http)

verify-images: setup ## Whether images are signed by a key, and where they came from (PUBLIC_KEY=release.pub IMAGES="registry/name@sha256:..." PLAIN_HTTP=1)
	@$(BIN)/python scripts/signing.py --key "$(PUBLIC_KEY)" $(if $(PLAIN_HTTP),--plain-http) $(IMAGES)

sbom: setup ## What the images hold, as CycloneDX JSON -> build/sbom/
	@$(BIN)/python scripts/sbom.py

scan: setup ## Known vulnerabilities in what `make sbom` has listed, by your database of grype's (GRYPE_DB=folder or archive, FAIL_ON=medium)
	@$(BIN)/python scripts/scan.py --fail-on $(or $(FAIL_ON),medium)

plugin: setup ## kubectl-modelwright as archives for krew, with its manifest -> dist (URL=where they will lie)
	@$(BIN)/python scripts/plugin.py $(if $(URL),--url $(URL))

bundle: setup ## A bundle for the Operator Lifecycle Manager -> dist/olm (VALUES=build/images.yaml for what `make push` pushed)
	@$(BIN)/python scripts/olm.py $(if $(VALUES),--values "$(VALUES)")

release: setup ## A whole release, see CONTRIBUTING.md: VERSION=1.2.3 REGISTRY=... URL=... SIGN_KEY=release.key (PLAIN_HTTP=1; DRY_RUN=1 only says what it would do)
	@$(BIN)/python scripts/release.py "$(VERSION)" --registry "$(REGISTRY)" --url "$(URL)" $(if $(PLAIN_HTTP),--plain-http) $(if $(DRY_RUN),--dry-run)

chart: setup ## helm lint of both charts
	@for chart in $(CHARTS); do $$($(BIN)/python -c 'from devcluster import parts; parts.build(["helm"]); print(parts.binary_path("helm"))') lint --strict $$chart; done

scale: setup ## Pace: beside a bare operator, 100 to 5,000 Models, 100 rollouts at once -> docs/figures/scale*.json (ARGS="--spike --models 100" and others)
	@$(BIN)/python -m tests.scale $(ARGS)

scale-retraining: setup ## What 1,000 idle RetrainingPolicies cost -> docs/figures/scale-retraining.json
	@$(BIN)/python -m tests.scale --retraining 1000

simulate: setup ## How often evidence errs, by simulation -> docs/figures/simulate.json, mirror.json, bursts.json; of gates and drift a tenth (PART=0..9)
	@$(BIN)/python -m tests.simulate
	@$(BIN)/python -m tests.simulate.mirror
	@$(BIN)/python -m tests.simulate.bursts
	@$(BIN)/python -m tests.simulate.gates --part $(or $(PART),$(shell date +%j | tail -c 2))
	@$(BIN)/python -m tests.simulate.drift --part $(or $(PART),$(shell date +%j | tail -c 2))
	@$(BIN)/python -m tests.simulate.drift_grid --part $(or $(PART),$(shell date +%j | tail -c 2))

simulate-all: simulate ## As simulate, with all cells of evaluation gates and drift -> docs/figures/gates.json, drift.json, drift-grid.json
	@$(BIN)/python -m tests.simulate.gates
	@$(BIN)/python -m tests.simulate.drift
	@$(BIN)/python -m tests.simulate.drift_grid

faults: setup ## Every story under every fault of the API server -> docs/figures/faults.json (long; SAMPLE=8 plays some)
	@$(BIN)/python -m tests.faults $(if $(SAMPLE),--sample $(SAMPLE) --away 12)

bench-fetch: setup ## Fetch speed beside dedicated clients -> docs/figures/fetch.json
	@$(BIN)/python -m tests.scale.bench_fetch

bench-cli: setup ## What starting the kubectl plugin costs, beside `python -c pass`
	@$(BIN)/python -m tests.scale.bench_cli

flakes: setup ## RUNS=1 whole runs of make test, each of the committed tree, beside LOAD=0 busy processes -> docs/figures/flakes.json
	@$(BIN)/python scripts/flakes.py run $(if $(RUNS),--runs $(RUNS)) $(if $(LOAD),--load $(LOAD))

lock: setup ## Pin every requirements/*.in again, with hashes
	@scripts/lock

cache: setup ## What is in ~/.cache/modelwright; drops what is there for peers beyond 10 GB, and with PRUNE=1 versions that the tree no longer names
	@$(BIN)/python scripts/cache.py $(if $(PRUNE),--prune)

clean: ## Remove what builds and tests leave in this folder (caches by version stay in ~/.cache/modelwright)
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: $(shell grep -hoE '^[a-z0-9-]+:' $(MAKEFILE_LIST) | tr -d ':')
