# `make` lists the verbs. Variables go behind them: `make up HTTP_PORT=9000 STATE_DIR=.state-2`
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
PYTHON ?= python3
BIN := .venv/bin
LOCAL := $(BIN)/python -m deploy.local
DEV_PORT ?= 8200
ROWS ?= 1000000
FAULTS ?= full

.PHONY: help install up down status restart failover logs dev test faults bench capacity load explain lint fmt typecheck audit-verify audit-deps migrate migration seed psql slow redis-cli clean

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## Install what is missing, nothing else (OBSERVE=1, TESTS=1 for what those need too)
	@PYTHON=$(PYTHON) TESTS=$(TESTS) OBSERVE=$(OBSERVE) deploy/local/install.sh

up: install ## Start everything; harmless when it is up (POOLER=pgbouncer puts one in front of Postgres, OBSERVE=1 Prometheus beside)
	@$(LOCAL) up

down: ## Stop everything
	@if [ -x $(BIN)/python ]; then $(LOCAL) down; fi

status: ## What runs (FORMAT=json for tools)
	@$(LOCAL) status --format $(or $(FORMAT),table)

restart: ## Restart one program without losing a request (NAME=api-1), or all instances in turn
	@$(LOCAL) restart $(or $(NAME),$(INSTANCE))

failover: ## Make the best replica the primary (NAME=replica-1 for that one, if it lacks nothing)
	@$(LOCAL) failover $(NAME)

logs: ## Follow the logs (NAME=api-1 for one)
	@$(LOCAL) logs $(NAME)

dev: up ## One reloading process against the same stack (DEV_PORT=8200)
	@$(LOCAL) run fastapi dev app/main.py --port $(DEV_PORT)

test faults: TESTS = 1
test: install ## All tests but those that break things (ARGS= for pytest, POOLER=pgbouncer to go through one)
	@$(BIN)/pytest -n 2 --no-loadscope-reorder tests/system tests/integration tests/unit $(ARGS)

faults: install ## Tests that kill, freeze and delay (FAULTS=short for the short form)
	@FAULTS=$(FAULTS) $(BIN)/pytest tests/faults $(ARGS)

bench: install ## Measure (ARGS= for bench)
	@$(BIN)/python -m bench $(ARGS)

capacity: install ## How many instances, connections and dollars users take (ARGS="--from bench/results/capacity.json")
	@$(BIN)/python -m bench.capacity $(ARGS)

load: install ## A working day of many (USERS=50 DURATION=1m HOST=http://127.0.0.1:8080); reports in bench/reports
	@mkdir -p bench/reports
	@$(BIN)/locust -f bench/workday.py --headless --users $(or $(USERS),50) --spawn-rate 5 --stop-timeout 30s \
		--run-time $(or $(DURATION),1m) --host $(or $(HOST),http://127.0.0.1:$(or $(HTTP_PORT),8080)) \
		--html bench/reports/load.html --csv bench/reports/load $(ARGS)

explain: ## The plan of every query on this stack's data (ARGS="--analyze --brief")
	@$(LOCAL) run python -m bench.explain $(ARGS)

audit-verify: ## Is the audit log complete, unchanged and in order (ANCHOR=NUMBER:SIGNATURE from the log)
	@$(LOCAL) run python -m app.audit_verify $(if $(ANCHOR),--anchor $(ANCHOR))

audit-deps: install ## Known vulnerabilities in what is locked (AUDIT_REQUIRED=1 where that has to be known)
	@$(BIN)/python -m deploy.audit_dependencies

lint: install ## Style and import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/python -m migrations.lint

fmt: install ## Put the code into the common form
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

typecheck: install ## Types
	@$(BIN)/mypy

migrate: ## Bring the database to the newest revision
	@$(LOCAL) run alembic upgrade head

migration: ## Write a revision from the models (NAME="add due date")
	@$(LOCAL) run alembic revision --autogenerate -m "$(or $(NAME),$(error say what it does: NAME="add due date"))"

seed: ## Fill the database with examples (ROWS=1000000)
	@$(LOCAL) run python -m app.seed --rows $(ROWS)

psql: ## A prompt at the primary (NAME=replica-1 for another)
	@$(LOCAL) psql $(NAME)

slow: ## The statements that took most time, and the plans of the last slow ones (ARGS="--count 20")
	@$(LOCAL) slow $(ARGS)

redis-cli: ## A prompt at Redis
	@$(LOCAL) redis-cli

clean: ## Stop everything and delete its data
	@if [ -x $(BIN)/python ]; then $(LOCAL) clean; fi
