# Snap: a containerd runtime that starts containers from checkpoints.
#
# `make demo` and `make test`, as root on a Debian with Go, do all they need
# first: what they install lies below $(TOOLS), except packages of the
# distribution that are missing. `make build` needs libseccomp's headers only.

PREFIX   ?= /usr/local
DESTDIR  ?=
TOOLS    ?= .tools
GO       ?= go
FUZZTIME ?= 3s
KILLS    ?= 500
STRESS_TIME ?= 5m
RESTORES ?= 1000
MEMORY_MODES ?= copy lazy
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

PROGRAMS := containerd-shim-snap-v2 snapctl
COMPLETIONS := bash-completion/completions/snapctl.bash zsh/site-functions/_snapctl fish/vendor_completions.d/snapctl.fish
BUILD    := -trimpath -buildvcs=false -tags seccomp
# Without the gRPC stubs of containerd's API, as the stock shim is built: they
# would bring HTTP, TLS and templates into each shim's memory. netgo and osusergo
# ask nothing of the C library that it could not do when linked statically.
SHIM     := -trimpath -buildvcs=false -tags seccomp,no_grpc,netgo,osusergo
# Each start executes the shim three times, each exec once: without a dynamic linker
# that is quicker. Empty where a distribution has no static libraries.
STATIC   ?= 1
SHIM_LD  := -s -w -X main.version=$(VERSION) $(if $(STATIC),-linkmode external -extldflags -static)

override TOOLS := $(abspath $(TOOLS))
SNAP_BIN := $(CURDIR)/bin
SETUP    := TOOLS='$(TOOLS)' GO='$(GO)' tools/setup
# What tests and demo find: our programs first, then containerd, runc and CRIU.
RUN      := SNAP_TOOLS='$(TOOLS)' SNAP_BIN='$(SNAP_BIN)' PATH='$(SNAP_BIN):$(TOOLS)/bin':"$$PATH:/usr/sbin:/sbin"

SHELL := /bin/bash
export CGO_ENABLED := 1

.DEFAULT_GOAL := build
.PHONY: build test test-unit test-integration test-nerdctl test-examples test-cri test-fuzz test-store-kills test-mapped test-guest test-memory stress bench bench-quick conformance FORCE demo lint setup install man uninstall clean distclean help

build: ## build both programs into bin/ (the default)
	@$(SETUP)/packages check
	$(GO) build $(SHIM) -ldflags '$(SHIM_LD)' -o bin/ ./cmd/containerd-shim-snap-v2
	CGO_ENABLED=0 $(GO) build $(BUILD) -ldflags '-s -w -X main.version=$(VERSION)' -o bin/ ./cmd/snapctl
	@$(MAKE) --no-print-directory man

man: ## write snapctl's manual pages and shell completions into out/man/
	CGO_ENABLED=0 $(GO) run $(BUILD) ./cmd/snapctl/internal/manpages '$(VERSION)' out/man

test: ## unit, integration, nerdctl and CRI tests, conformance, then each fuzz target for FUZZTIME (root)
	$(MAKE) --no-print-directory test-unit
	$(MAKE) --no-print-directory test-integration
	$(MAKE) --no-print-directory test-nerdctl
	$(MAKE) --no-print-directory test-examples
	$(MAKE) --no-print-directory test-cri
	$(MAKE) --no-print-directory bench-quick
	$(MAKE) --no-print-directory conformance
	$(MAKE) --no-print-directory test-fuzz

test-unit: setup ## unit tests with the race detector (root)
	packages=$$($(GO) list -tags seccomp ./...) && \
		$(RUN) tools/in-private-ns $(GO) test -tags seccomp -race -timeout 10m $$(grep -Ev '/test/(integration|pressure|parity|failpoint|examples|clones|programs|network|nerdctl|guest)' <<<"$$packages")

test-integration: setup ## tests through containerd, with real containers (root)
	@$(SETUP)/go-tools cni
	$(MAKE) --no-print-directory build
	$(RUN) GO='$(GO)' tools/in-private-ns tools/retest -tags seccomp -count=1 -timeout 20m ./test/integration/... ./test/pressure
	$(RUN) GO='$(GO)' tools/in-private-ns tools/retest -tags seccomp -count=1 -timeout 10m -p 1 -parallel 6 ./test/parity ./test/failpoint/...
	$(RUN) GO='$(GO)' tools/in-private-ns tools/retest -tags seccomp -count=1 -timeout 10m -p 1 ./test/clones ./test/programs ./test/network

test-nerdctl: setup ## tests through nerdctl, with its networks and hooks (root)
	@$(SETUP)/go-tools cni
	@$(SETUP)/go-tools nerdctl
	$(MAKE) --no-print-directory build
	$(RUN) GO='$(GO)' tools/in-private-ns tools/retest -tags seccomp -count=1 -timeout 10m ./test/nerdctl

test-examples: setup ## the scripts below examples/ (root)
	$(MAKE) --no-print-directory build
	$(RUN) GO='$(GO)' tools/in-private-ns tools/retest -tags seccomp -count=1 -timeout 10m ./test/examples

test-cri: setup ## tests through Kubernetes' container runtime interface, with real pods (root)
	@$(SETUP)/go-tools cni
	$(MAKE) --no-print-directory build
	cd test/cri && $(RUN) GO='$(GO)' ../../tools/in-private-ns ../../tools/retest -tags seccomp -count=1 -timeout 10m ./...

bench: setup ## measure starts, clones and captures, for out/bench.json and docs/performance.md (root, 10 minutes)
	$(MAKE) --no-print-directory build out/bench
	$(RUN) tools/in-private-ns out/bench -doc docs/performance.md $(BENCH_ARGS)

bench-quick: setup ## does the benchmark work? Measures a little of everything once (root)
	$(MAKE) --no-print-directory build out/bench
	cd test/bench && $(GO) test ./...
	cp docs/performance.md out/bench-quick.md
	$(RUN) tools/in-private-ns out/bench -quick -out out/bench-quick.json -doc out/bench-quick.md $(BENCH_ARGS)

out/bench: FORCE
	cd test/bench && $(GO) build -trimpath -buildvcs=false -o ../../out/bench .

test-store-kills: ## kill -9 KILLS (500) processes that capture, pin and prune in one store
	SNAP_STORE_KILLS='$(KILLS)' $(GO) test -count=1 -timeout 30m -v -run TestKilledWhilePruning ./checkpoint/store

test-mapped: setup ## RESTORES (1000) mapped restores, each byte of each checked (root)
	$(MAKE) --no-print-directory build
	$(RUN) tools/in-private-ns $(GO) test -tags seccomp -count=1 -timeout 2h -v -run TestMappedMany ./test/integration -mapped-restores '$(RESTORES)'

# What a mapped restore is tested with runs in the default mode, auto: to force it upon
# the Go programs of these tests would break them, as docs/memory.md tells.
test-memory: setup ## restore, fallback, clone, failure and conformance tests in each of MEMORY_MODES (copy lazy) (root)
	$(MAKE) --no-print-directory build
	for mode in $(MEMORY_MODES); do \
		SNAP_MEMORY=$$mode $(MAKE) --no-print-directory conformance || exit 1; \
		SNAP_MEMORY=$$mode $(RUN) GO='$(GO)' tools/in-private-ns tools/retest -tags seccomp -count=1 -timeout 20m \
			-skip 'Mapped|Allocators|Stale|MemoryForms' ./test/integration ./test/clones || exit 1; \
	done

test-guest: setup ## tests under systemd and cgroup v2, in a virtual machine (root; 10 minutes where it is emulated)
	@$(SETUP)/guest
	$(MAKE) --no-print-directory build
	CGO_ENABLED=0 $(GO) test -c -o out/guest.test ./test/guest
	$(RUN) SNAP_PATIENCE=10 tools/in-guest out/guest.test -test.v -test.timeout 25m

test-fuzz: setup ## each fuzz target for FUZZTIME (3s)
	$(RUN) GO='$(GO)' FUZZTIME='$(FUZZTIME)' tools/in-private-ns tools/fuzz

conformance: setup ## containerd's client test-suite with the stock shim and with ours (root)
	@$(SETUP)/conformance
	$(MAKE) --no-print-directory build
	$(GO) build $(BUILD) -o out/conformance/conformance ./test/conformance
	$(GO) build $(SHIM) -o out/conformance/failpoint/containerd-shim-snap-v2 ./test/conformance/shim
	$(RUN) out/conformance/conformance $(CONFORMANCE_ARGS)

stress: setup ## containerd-stress for STRESS_TIME (5m), ours and the stock shim in turns (root)
	$(MAKE) --no-print-directory build
	$(RUN) tools/in-private-ns $(GO) test -tags seccomp -count=1 -timeout 2h -v -run TestStress ./test/pressure \
		-stress '$(STRESS_TIME)' -slice 30s -speed

demo: setup ## show a slow program that starts fast the second time (root)
	$(MAKE) --no-print-directory build
	$(GO) build $(BUILD) -o out/demo ./test/demo
	$(RUN) tools/in-private-ns out/demo $(DEMO_ARGS)

lint: ## check format, vet, golangci-lint and the syntax of scripts
	@$(SETUP)/packages build
	@$(SETUP)/go-tools lint
	@find .ci examples tools test -type f -perm /111 | while read -r f; do \
		! head -n1 "$$f" | grep -q '^#!/bin/\(ba\)\?sh' || bash -n "$$f" || exit 1; done
	@unformatted=$$(gofmt -l $$(find . -name '*.go' -not -path './.*')); \
		[ -z "$$unformatted" ] || { echo "gofmt these:" $$unformatted; exit 1; }
	$(GO) vet -tags seccomp ./... && for m in cri bench; do (cd test/$$m && $(GO) vet -tags seccomp ./...) || exit 1; done
	$(TOOLS)/bin/golangci-lint run && for m in cri bench; do (cd test/$$m && $(TOOLS)/bin/golangci-lint run) || exit 1; done

setup: ## install what tests and demo use: packages, CRIU, containerd, images (root)
	@$(SETUP)/packages test
	@$(SETUP)/criu
	@$(SETUP)/go-tools containerd
	@$(SETUP)/images

install: $(PROGRAMS:%=bin/%) | out/man/man1/snapctl.1 ## install what build made into PREFIX (/usr/local) below DESTDIR
	install -d '$(DESTDIR)$(PREFIX)/bin'
	install -m 0755 $^ '$(DESTDIR)$(PREFIX)/bin'
	install -d $(addprefix '$(DESTDIR)$(PREFIX)/share'/,man/man1 $(dir $(COMPLETIONS)))
	install -m 0644 out/man/man1/*.1 '$(DESTDIR)$(PREFIX)/share/man/man1'
	for f in $(COMPLETIONS); do install -m 0644 out/man/completions/$${f##*/} '$(DESTDIR)$(PREFIX)/share'/$$f || exit 1; done

# So that `sudo make install` needs no Go: nothing is built if it is there.
$(PROGRAMS:%=bin/%) &:
	$(MAKE) --no-print-directory build

out/man/man1/snapctl.1:
	$(MAKE) --no-print-directory man

uninstall: ## remove what install put there
	rm -f $(PROGRAMS:%='$(DESTDIR)$(PREFIX)/bin/%') '$(DESTDIR)$(PREFIX)'/share/man/man1/snapctl{,-*}.1 \
		$(addprefix '$(DESTDIR)$(PREFIX)/share'/,$(COMPLETIONS))

clean: ## remove what was built here
	rm -rf bin out

distclean: clean ## also remove what setup installed
	rm -rf $(addprefix '$(TOOLS)'/,apt bin cni criu images lib stamps .lock)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
