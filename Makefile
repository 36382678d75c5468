# SPDX-License-Identifier: GPL-3.0-or-later
# Every command a person or CI runs. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
LOCAL := -i inventories/local
export PATH := $(CURDIR)/$(BIN):$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

.PHONY: help setup demo down test lint audit unit images integration molecule lock
help: ## List the commands
	@awk -F':.*## ' '/^[a-z_-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Make .venv with the pinned packages
	@scripts/setup

demo: setup ## Deploy on this machine, break the database three ways, recover it each time
	@$(BIN)/python -m tests.demo

down: setup ## Remove all that `make demo` made, and nothing else
	@$(BIN)/ansible-playbook $(LOCAL) playbooks/down.yml

test: setup ## Everything below, as CI runs it, with the time each part took
	@for part in lint unit integration molecule; do \
		start=$$SECONDS; \
		echo "==> make $$part"; \
		$(MAKE) --no-print-directory $$part || exit 1; \
		echo "==> make $$part took $$((SECONDS - start)) s"; \
	done

lint: setup ## ruff, mypy, ansible-lint, validate-modules, argument specs, bandit
	@tests/lint/run

audit: setup ## Known vulnerabilities in the pinned packages: asks a service on the Internet, so not part of `make test`
	@tests/lint/audit

unit: setup ## Unit tests: no containers
	@$(BIN)/pytest tests/unit

images: setup ## Install Docker if missing, build the images and their archive for the test servers
	@$(BIN)/ansible-playbook $(LOCAL) playbooks/build.yml

integration: images ## The agent against real PostgreSQL, Redis and the doubles, in containers
	@$(BIN)/pytest tests/integration

molecule: images ## Throwaway servers, really broken and really mended (SCENARIO=name for one)
	@tests/molecule/run $(SCENARIO)

lock: setup ## Pin the dependencies anew from the two pyproject.toml files
	@scripts/lock
