# `make run` and `make test` are enough; `make help` lists all targets.

CARGO ?= cargo
# The scripts expect the build here, even if cargo is configured to use another directory.
export CARGO_TARGET_DIR := $(CURDIR)/target
.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /	/' | expand -t 16

.PHONY: run
run: ## Build and start the proxy, or the demo without secrets (ARGS="--port 8900")
	$(CARGO) build --release --locked
	@exec target/release/flow-proxy --or-demo $(ARGS)

.PHONY: build
build: ## Build the release binary, target/release/flow-proxy
	$(CARGO) build --release --locked

.PHONY: test
test: ## Format, lints, documentation and all tests
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	@$(MAKE) --no-print-directory lint
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items
	$(CARGO) test --locked -- --test-threads=8

.PHONY: lint
lint: ## Imports, words and sizes of the sources; prints nothing where all is well
	@$(CARGO) test --quiet --locked --test lint

.PHONY: static
static: ## Build dist/flow-proxy, one static file: musl, or glibc where musl is missing
	@CARGO="$(CARGO)" deploy/build-static.sh

.PHONY: install
install: ## Install binary, man page and completions (PREFIX, DESTDIR, BINARY)
	@CARGO="$(CARGO)" PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" BINARY="$(BINARY)" deploy/install.sh install

.PHONY: uninstall
uninstall: ## Remove the installed files (PREFIX, DESTDIR)
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" deploy/install.sh uninstall

.PHONY: test-static
test-static: static ## Run dist/flow-proxy in an empty root directory
	tests/static.sh

.PHONY: test-deploy
test-deploy: build ## Test the files in deploy/ with the programs that are installed
	tests/deploy.sh

.PHONY: test-clients
test-clients: ## Run the OpenAI and Anthropic SDKs and curl against the binary (ONLY=WORD)
ifndef FLOW_PROXY_BIN
	$(CARGO) build --release --locked
endif
	PYTHONDONTWRITEBYTECODE=1 python3 tests/clients/run.py "$(ONLY)"

.PHONY: test-litellm
test-litellm: ## Run the binary against a real LiteLLM with many kinds of credentials (ONLY=WORD)
ifndef FLOW_PROXY_BIN
	$(CARGO) build --release --locked
endif
	PYTHONDONTWRITEBYTECODE=1 python3 tests/litellm/run.py "$(ONLY)"

.PHONY: test-browser
test-browser: ## Run web pages in a headless Chromium against the binary (ONLY=WORD)
ifndef FLOW_PROXY_BIN
	$(CARGO) build --release --locked
endif
	PYTHONDONTWRITEBYTECODE=1 python3 tests/browser/run.py "$(ONLY)"

.PHONY: test-metrics
test-metrics: ## Check metrics, alerts and dashboard with promtool
ifndef FLOW_PROXY_BIN
	$(CARGO) build --release --locked
endif
	tests/metrics.sh

.PHONY: screenshots
screenshots: build ## Take the pictures in docs/ of the proxy's own page
	PYTHONDONTWRITEBYTECODE=1 python3 tests/browser/screenshots.py

.PHONY: bench
bench: ## Measure against a relay, nginx and HAProxy on loopback (ARGS="--rounds 3 --only small")
	$(CARGO) bench --locked --bench bench -- $(ARGS)

.PHONY: soak
soak: ## Send mixed load for MINUTES (20); memory, descriptors and threads must stay flat
	$(CARGO) bench --locked --bench soak -- --minutes $(or $(MINUTES),20)

.PHONY: test-smuggling
test-smuggling: ## Send ambiguous requests directly and through nginx and HAProxy
	$(CARGO) build --locked
	tests/smuggling.py

.PHONY: test-network
test-network: ## Let clients and upstreams vanish, in network namespaces; needs root (ONLY=WORD)
ifndef FLOW_PROXY_BIN
	$(CARGO) build --locked
endif
	tests/network.py "$(ONLY)"

.PHONY: fuzz
fuzz: export CARGO_TARGET_DIR := $(CURDIR)/fuzz/target
# The sanitizers are unstable options, which a stable compiler takes with this.
fuzz: export RUSTC_BOOTSTRAP := 1
fuzz: ## Fuzz each parser for FUZZ_SECONDS (60); needs cargo-fuzz
	@$(CARGO) fuzz --version >/dev/null 2>&1 || { echo "make fuzz: cargo-fuzz is missing: cargo install cargo-fuzz" >&2; exit 1; }
	@set -e; for target in head chunked answer sse usage; do \
	  mkdir -p fuzz/corpus/$$target; \
	  $(CARGO) fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
	    -max_total_time=$${FUZZ_SECONDS:-60} -rss_limit_mb=1024; \
	done

.PHONY: audit
audit: ## Check the dependencies: vulnerabilities, licences, duplicates, sources
	@CARGO="$(CARGO)" tests/audit.sh

.PHONY: third-party
third-party: ## Write THIRD-PARTY.md, the list of crates and their licences
	WRITE_THIRD_PARTY=1 $(CARGO) test --locked --test it -- third_party

.PHONY: clean
clean: ## Remove what was built
	$(CARGO) clean
