# Every target installs what it needs. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PY := .venv/bin/python
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo test ansible-test soak unit integration lint fmt bench sim proto clean ci
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 22

setup: ## install Debian packages and make .venv/bin/pyswarm
	@scripts/setup.sh

demo: setup ## three hosts, a service, a rolling update under load (KEEP=1 leaves the lab up)
	@$(PY) scripts/demo.py $(if $(KEEP),--keep)

test: lint unit sim integration ## everything once

unit: setup ## planners, machines, parsers, stores
	@$(PY) -m pytest tests/unit -n auto

integration: setup ## real etcd, containers, kernels, hosts of the lab
	@$(PY) -m pytest tests/integration -m "not ansible" -n 2 --dist loadfile --timeout 300

ansible-test: setup ## real hosts with systemd, by the playbooks: install, upgrade, reboot, drain, reset
	@$(PY) -m pytest tests/integration/ansible -rP --timeout 1200

soak: setup ## the full counts that the issues ask for
	@SOAK=1 $(PY) -m pytest tests/integration -m lab --timeout 3600

lint: setup ## ruff, mypy --strict, import-linter, drift of generated code
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check -q .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@scripts/proto.sh --check
	@cd deploy/ansible && PATH=$(CURDIR)/.venv/bin:$$PATH ansible-lint -q --offline playbooks

fmt: setup ## format
	@.venv/bin/ruff check --fix -q .
	@.venv/bin/ruff format -q .

bench: setup ## the figures, as ratios against a peer or a floor
	@for b in bench/[a-z]*.py; do echo "== $$b"; $(PY) $$b; done

# JOBS=1 keeps to one processor.
sim: setup ## the simulator: a few seeds; SEED=7 replays one; HOURS=100 LOG=file runs long, and goes on where it was
	@$(if $(SEED)$(HOURS),,$(PY) -m pytest tests/simulation -n auto)
	@$(PY) -m tests.simulation --seed $(or $(SEED),1) $(if $(HOURS),--hours $(HOURS),--seeds $(if $(SEED),1,4)) \
		$(if $(LOG),--log $(LOG)) $(if $(JOBS),--jobs $(JOBS))

proto: setup ## generate core/pyswarm_core/v1 from protos/
	@scripts/proto.sh >/dev/null

clean: ## what was built here, .venv too
	@rm -rf .venv .setup.stamp .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

ci: ## what .ci/run does
	@bash .ci/run
