# `make` alone lists what there is. The work is done by scripts that run without make too.
.DEFAULT_GOAL := help
.PHONY: help run up down logs purge build image test fuzz faults bench services

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  RUN_FOR=60 make run ends by itself; RUN_WITH=native|compose chooses how to run"

run: ## everything, with API and live results; Ctrl-C stops (containers where Docker answers, else natively)
	@scripts/run foreground

up: ## everything in the background
	@scripts/run up

down: ## stop everything; data is kept
	@scripts/run down

logs: ## follow the logs of producer, consumer and API
	@scripts/run logs

purge: down ## stop everything and delete all data
	@scripts/services purge
	@if docker info >/dev/null 2>&1; then docker compose --profile '*' down --volumes; fi
	rm -rf data

build: ## the three programs, optimised, in target/release
	cargo build --release --locked --bins

image: ## tests, then the container image
	./build.sh

test: ## format, lints, docs, licences and all tests, against real services
	./test.sh

fuzz: ## random answers, requests, messages and configurations for FUZZ_FOR seconds each (60)
	WEBMON_TEST_FUZZ_SECONDS=$${FUZZ_FOR:-60} cargo test --locked --test fuzz -- --nocapture

faults: ## kills, outages, bad networks and the like at length; writes docs/faults.md (some 40 min)
	@scripts/faults

bench: ## what checks, rows and API requests cost (installs nginx and wrk; 15 to 30 min)
	@scripts/bench

services: ## only PostgreSQL and Kafka, on 127.0.0.1
	@scripts/services up
