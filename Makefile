# ebpf.fleet. `make help` lists what a person may want; everything sets itself up.
SHELL := /bin/sh
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.cache/venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/collections
export PYTHONPATH := $(CURDIR):$(CURDIR)/collections
# A module's answer that looks like a template is an error, never a silent string.
export _ANSIBLE_TEMPLAR_UNTRUSTED_TEMPLATE_BEHAVIOR := error
export ANSIBLE_INJECT_FACT_VARS := false
# The kernel, the loader's tests and the lab need root.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo -E env PATH="$$PATH")
PYTHON := .cache/venv/bin/python
PYTEST := $(SUDO) $(PYTHON) -m pytest
HOST ?=
HOSTS ?=

.PHONY: simulate-gate feature contract bench bench-against checks differential fuzz soak privileges reason-codes help setup demo test test-all test-unit test-loader test-integration test-molecule test-faults test-matrix test-lab test-scenarios lint release build lab-up lab-down lab-ssh clean test-host mutants

help: ## what can be made
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Debian packages and the virtual environment, cached in .cache/
	@$(SUDO) tools/setup.sh

build: setup ## the loader and the features' objects, into build/
	@$(MAKE) -s --no-print-directory -C bpf

demo: build ## the main job on a fleet of real VMs; summary in build/demo/summary.json
	@$(SUDO) $(PYTHON) -m tools.demo

test: build ## what CI runs: every kind of test, those of VMs on two kernels; some 20 minutes
	@$(SUDO) $(PYTHON) -m tools.run_tests --quick

test-all: build ## every test there is, the matrix of kernels too; some 2 hours
	@$(SUDO) $(PYTHON) -m tools.run_tests

test-unit: setup ## pure logic, seconds
	@$(PYTEST) tests/unit

test-loader: build ## the loader on this machine's own kernel
	@$(PYTEST) tests/loader

test-integration: build ## modules and playbooks without the lab
	@$(PYTEST) tests/integration

test-host: build ## hostile loaders and users on a host with systemd in namespaces, some 3 minutes
	@$(PYTEST) tests/host

test-faults: build lab-up ## rollouts and kills on the lab under faults
	@$(PYTEST) tests/faults/test_rollout.py tests/faults/test_kill.py tests/faults/test_reboot.py tests/faults/test_lease.py

test-scenarios: build ## all that a rollout may meet, each on real hosts: docs/scenarios.md; some 30 minutes
	@$(SUDO) $(PYTHON) -m tools.run_tests scenarios

test-matrix: build ## every feature on every kernel of the matrix: build/matrix/matrix.html; HOSTS="k616 own" for some
	@$(SUDO) $(PYTHON) -m tools.matrix $(HOSTS)

test-lab: build ## features under load, BCC, the oracle, budgets and leases on the lab's kernels; slow
	@$(SUDO) $(PYTHON) -m tools.run_tests features oracles budgets flood lease planned

test-molecule: build lab-up ## the roles' Molecule scenarios on the lab
	@$(SUDO) $(PYTHON) -m tools.run_tests molecule

fuzz: export EBPF_FLEET_FUZZ_SECONDS := $(or $(FUZZ_SECONDS),300)
fuzz: build ## every parser of the loader under libFuzzer, FUZZ_SECONDS=300 each; the loader under valgrind
	@$(SUDO) $(PYTHON) -m tools.run_tests fuzz valgrind

differential: build ## both verifiers and ssh-keygen over MUTANTS=40 of each class, the loader under ASan
	@$(SUDO) env EBPF_FLEET_MUTANTS=$(or $(MUTANTS),40) $(PYTHON) -m tools.run_tests verifiers

mutants: build ## faults planted by rule, and which no test notices; hours: AREA=c/tell,python COUNT=460 SEED=12 JOBS=4 TESTS=tests/unit WHOLE=1 FRESH=1
	@$(SUDO) $(PYTHON) -m tools.mutants $(if $(AREA),--area $(AREA)) $(if $(COUNT),--count $(COUNT)) \
		$(if $(SEED),--seed $(SEED)) $(if $(JOBS),--jobs $(JOBS)) $(if $(TESTS),--tests $(TESTS)) $(if $(WHOLE),--whole) $(if $(FRESH),--fresh)

bench: build ## ours beside peers, here and in a VM: build/bench/results.json, docs/benchmarks/; some 10 minutes
	@$(SUDO) $(PYTHON) -m tools.bench

bench-against: build ## those benchmarks in this tree and in an older commit: OLD=REVISION, NAMES="runqlat idle" for some
	@$(SUDO) $(PYTHON) -m tools.bench.against $(OLD) $(NAMES)

soak: build ## 30 minutes of changing load and faults, clock jumps in a guest, 1000 random kill -9; build/soak/report.json
	@$(SUDO) $(PYTHON) -m tests.soak --minutes $(or $(MINUTES),30)
	@$(SUDO) $(PYTHON) -m tests.lab up k612
	@$(SUDO) env EBPF_FLEET_CLOCK_ROUNDS=20 $(PYTHON) -m pytest -q tests/lab/test_clock.py
	@$(SUDO) env EBPF_FLEET_DEATHS=1000 $(PYTHON) -m pytest -q tests/loader/test_sudden_death.py

simulate-gate: setup ## false alarms and misses of the gate's rank tests by simulation, some minutes: ROLLOUTS=2000 SEED=13
	@$(PYTHON) -m tools.simulate_gate $(if $(ROLLOUTS),--rollouts $(ROLLOUTS)) $(if $(SEED),--seed $(SEED))

checks: setup ## the tables of checks and limits in docs/rollout.md, from the gate's records
	@$(PYTHON) -m tools.gate_page

reason-codes: setup ## docs/reason-codes.md from the one list of codes
	@$(PYTHON) -m tools.reason_codes

privileges: setup ## docs/privileges.md from the sources: capabilities, system calls, sandbox and its score
	@$(PYTHON) -m tools.privileges

# Only as typed: some shells have a NAME in their environment.
feature contract: export FEATURE_NAME := $(if $(filter command,$(origin NAME)),$(value NAME))
feature: setup ## a new feature that builds and keeps its contract, to be filled in: NAME=name
	@$(PYTHON) -m tools.feature.skeleton

contract: setup ## build a feature and hold its contract against the objects, as a release does: NAME=name
	@$(PYTHON) -m tools.feature.check

lint: setup ## ansible-lint (production), ruff, mypy, yamllint, shellcheck, clang-format, C warnings
	@tools/lint.sh

release: build ## a signed bundle of the repository's features: VERSION=, SEQUENCE=, KEY=
	@ansible-playbook playbooks/release.yml \
		-e ebpf_fleet_release_version="$(VERSION)" -e ebpf_fleet_release_sequence="$(SEQUENCE)" \
		-e ebpf_fleet_release_signing_key="$(KEY)"

lab-up: setup ## boot the lab's VMs and write inventories/lab/hosts.yml
	@$(SUDO) $(PYTHON) -m tests.lab up

lab-down: setup ## stop the lab's VMs
	@$(SUDO) $(PYTHON) -m tests.lab down

lab-ssh: setup ## a shell on a lab host: HOST=name
	@[ -n "$(HOST)" ] || { echo "lab-ssh: say which host: make lab-ssh HOST=name (see make lab-up)" >&2; exit 2; }
	@$(SUDO) $(PYTHON) -m tests.lab ssh $(HOST)

clean: ## remove build/ (the cache in .cache/ stays)
	rm -rf build
