# Gantry: everything a developer does. `make help` lists it.
SHELL   := /bin/bash
VERSION ?= $(shell cat VERSION)
COMMIT  ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
STAMP   := -X gantry/internal/version.Version=$(VERSION) -X gantry/internal/version.Commit=$(COMMIT)
GOBUILD := CGO_ENABLED=0 go build -trimpath -ldflags "-s -w $(STAMP)"
PREFIX  ?= /usr/local
CACHE   ?= /var/cache/gantry-test

# Packages whose tests are pure enough for the race detector; the others fork,
# change namespaces and re-execute themselves.
KERNEL  := ./internal/ociruntime/... ./internal/shim/... ./internal/network/... ./internal/cgroup/... ./test/...
RACE    := $(shell command -v gcc >/dev/null && echo -race)

# A test that a busy machine made fail is run once more and named at the end of the
# output (docs/testing.md); not where there are more than three, nor for a data race.
GOTEST  := go run gotest.tools/gotestsum@v1.13.0 --format standard-quiet --rerun-fails=1 --rerun-fails-max-failures=3 --rerun-fails-abort-on-data-race --rerun-fails-run-root-test

.PHONY: help build demo test check lint pure kernel system vm bench install uninstall deps clean fmt

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build gantry, gantryd, gantry-shim, gantry-registry and gantry-buildx into bin/
	@mkdir -p bin
	$(GOBUILD) -o bin/gantry-shim ./cmd/gantry-shim
	@cmp -s bin/gantry-shim internal/daemon/shimbin/gantry-shim || cp bin/gantry-shim internal/daemon/shimbin/gantry-shim
	$(GOBUILD) -o bin/gantryd ./cmd/gantryd
	$(GOBUILD) -o bin/gantry ./cmd/gantry
	$(GOBUILD) -o bin/gantry-registry ./cmd/gantry-registry
	$(GOBUILD) -o bin/gantry-buildx ./cmd/gantry-buildx

demo: build ## build, start a daemon on throw-away directories, run containers, show them
	@test/demo.sh

test: deps build check lint ## everything, as root
	+@$(MAKE) --no-print-directory -j2 -Oline kernel vm # a machine under qemu uses one processor
	@$(MAKE) --no-print-directory system
	@test/leftovers.sh

check: pure ## formatting, vet, architecture and pure tests
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi
	go vet ./...
	go test ./internal/arch

lint: ## static analysis (staticcheck, fetched as a Go module)
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...

pure: ## tests that need no kernel, with the race detector where there is a C compiler
	$(GOTEST) --packages "$$(go list ./... | grep -vE '^gantry/(test|internal/(ociruntime|shim|network|cgroup|arch))(/|$$)' | tr '\n' ' ')" -- $(RACE) -timeout 20m

kernel: ## tests of namespaces, mounts, control groups and networks; need root
	$(GOTEST) --packages "./internal/ociruntime/... ./internal/shim/... ./internal/cgroup/... ./internal/network/..." -- -p 1 -timeout 20m

vm: ## the kernel-level tests on a cgroup v2 machine under qemu
	$(GOTEST) --packages ./test/vm -- -count=1 -timeout 20m

system: build ## the real programs, driven by scripts, docker and docker-py; need root
	GANTRY_BIN=$(CURDIR)/bin $(GOTEST) --packages "$$(go list ./test/... | grep -vE '/test/(bench|vm)(/|$$)' | tr '\n' ' ')" -- -count=1 -p 2 -timeout 20m

bench: build ## the promises of docs/spec.md, as ratios to a floor measured in the same run
	go run ./test/bench -bin $(CURDIR)/bin

deps: ## install what the tests need from Debian's packages
	@test/deps.sh $(CACHE)

install: build ## install programs, completions, man page and systemd unit below PREFIX
	install -Dm755 -t $(DESTDIR)$(PREFIX)/bin bin/gantry bin/gantryd bin/gantry-shim
	install -Dm755 -t $(DESTDIR)$(PREFIX)/lib/gantry/cli-plugins bin/gantry-registry bin/gantry-buildx
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d $(DESTDIR)$(PREFIX)/lib/systemd/system
	bin/gantry completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/gantry
	bin/gantry completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_gantry
	bin/gantry completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/gantry.fish
	sed 's|@PREFIX@|$(PREFIX)|' dist/gantry.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/gantry.service
	install -m644 dist/gantry.socket $(DESTDIR)$(PREFIX)/lib/systemd/system/gantry.socket

uninstall: ## remove what install put there
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/,bin/gantry bin/gantryd bin/gantry-shim lib/gantry/cli-plugins/gantry-registry lib/gantry/cli-plugins/gantry-buildx share/bash-completion/completions/gantry share/zsh/site-functions/_gantry share/fish/vendor_completions.d/gantry.fish lib/systemd/system/gantry.service lib/systemd/system/gantry.socket)

fmt: ## format the code
	gofmt -w $$(git ls-files '*.go')

clean: ## remove what was built
	rm -rf bin internal/daemon/shimbin/gantry-shim
