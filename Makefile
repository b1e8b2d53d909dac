# PG_CONFIG names the server to build for (15 to 18); without it scripts/lib.sh looks for one.
ifdef PG_CONFIG
export PG_CONFIG
endif

# Where rustup puts cargo, for a shell that is no login shell.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

TRACE ?= demo/run.jsonl

.PHONY: help setup build install uninstall demo demo-tiers run test lint unit regress isolation crash clients bench \
	savers adapters soak matrix newcomer deb dist clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: ## replay a recorded agent run (TRACE=file.jsonl[.gz]) and show what was saved
	@scripts/setup build
	@scripts/build release >/dev/null
	@cargo build --release -p state_cache_demo
	@scripts/with-server --conf 'autovacuum = off' --conf 'checkpoint_timeout = 1h' --conf 'max_wal_size = 8GB' -- \
		cargo run --quiet --release -p state_cache_demo -- $(DEMO_OPTIONS) $(TRACE)

demo-tiers: ## play recorded runs on two application servers while Redis and its feeder are killed (TRACE=…)
	@scripts/setup build bench
	@scripts/build release >/dev/null
	@cargo build --release -p state_cache_l2_feeder -p state_cache_tiers_demo
	@scripts/with-server --conf 'autovacuum = off' -- \
		cargo run --quiet --release -p state_cache_tiers_demo -- $(DEMO_OPTIONS) $(TRACE)

run: ## open psql on a throwaway server with the extension
	@scripts/setup build
	@scripts/build release >/dev/null
	@echo 'The extension is preloaded and created. All of this server goes when psql ends.'
	@scripts/with-server -- psql

test: ## run everything: lint, unit, regress, isolation, crash, clients
	@scripts/setup build test clients
	@scripts/check

lint: ## check format, lints (warnings being errors) and the links of the docs
unit: ## test what needs no server
regress: ## run the SQL tests, with and without preloading
isolation: ## run the tests of races between sessions
crash: ## run the tests that start, kill and restart servers

clients: ## run the programs in examples/, which the pages in docs/clients/ show
	@scripts/setup build test clients
	@scripts/check $@

lint unit regress isolation crash:
	@scripts/setup build test
	@scripts/check $@

bench: ## measure side by side, into docs/benchmarks.md
	@scripts/setup build bench
	@scripts/build release >/dev/null
	@cargo build --release -p state_cache_bench -p state_cache_l2_feeder
	@scripts/with-server --conf 'autovacuum = off' --conf 'checkpoint_timeout = 1h' --conf 'max_wal_size = 8GB' $(BENCH_SERVER) -- \
		cargo run --quiet --release -p state_cache_bench -- $(BENCH_OPTIONS)

savers: ## compare the saver for LangGraph with the official one: size, WAL, speed
	@scripts/setup build clients
	@scripts/build release >/dev/null
	@scripts/with-server --no-extension --conf 'autovacuum = off' --conf 'checkpoint_timeout = 1h' --conf 'max_wal_size = 8GB' -- \
		scripts/with-clients sh -c 'PYTHONPATH=clients/python/src $$STATE_CACHE_PYTHON bench/python/langgraph_savers.py $(SAVERS_OPTIONS)'

adapters: ## test the adapters for agent frameworks, CrewAI among them, which takes a gigabyte of disk
	@scripts/setup build clients
	@scripts/build release >/dev/null
	@scripts/with-server --conf 'fsync = off' --conf 'state_cache.notify = commit' -- scripts/with-clients --crewai sh -c \
		'cd clients/python && export PYTHONPATH=src PYTHONDONTWRITEBYTECODE=1 && \
		$$STATE_CACHE_PYTHON -m pytest -q -p no:cacheprovider \
			tests/test_openai_agents.py tests/test_google_adk.py tests/test_agent_framework.py && \
		$$STATE_CACHE_CREWAI -m pytest -q -p no:cacheprovider tests/test_crewai.py'

matrix: ## run the suite on each Debian release's PostgreSQL, in roots of their own (MATRIX, MATRIX_PARTS)
	@scripts/matrix

newcomer: ## do what README says as a new user on a fresh Debian 12 and 13
	@scripts/matrix newcomer

soak: ## run the tests that are too long for the suite
	@scripts/setup build test clients
	@scripts/build fault_injection >/dev/null
	@scripts/with-tree fault_injection cargo test --release -p state_cache_server_tests -- \
		--ignored --nocapture --test-threads=1
	@scripts/build release >/dev/null
	@cargo build --release -p state_cache_l2_feeder
	@STATE_CACHE_PROGRAMS=$(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/release scripts/with-server --conf 'fsync = off' \
		--conf 'max_connections = 200' -- \
		cargo test --release -p state_cache_clients_tests client -- --ignored --nocapture

setup: ## install all that is missing to build, test and measure, from the distribution's packages
	@scripts/setup

build: ## build the extension into a relocated server under target/
	@scripts/setup build
	@scripts/build release

install: ## install the extension into the server that PG_CONFIG names (DESTDIR is obeyed)
	@scripts/install

uninstall: ## take away what install has placed (DESTDIR is obeyed)
	@scripts/uninstall

deb: ## build packages for Debian, of the extension for the server found and of the programs, into target/deb
	@scripts/deb

dist: ## make the archive of the last commit for PGXN, in target/
	@scripts/dist

clean: ## remove what was built
	@[ ! -d target/matrix ] || scripts/matrix clean
	@cargo clean
