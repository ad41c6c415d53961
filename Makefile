# What a developer does here, one word each; `make` alone lists them. Nothing
# needs to be installed but Go: pinned tools and the control plane are built on
# first use and kept outside the checkout (see test/cache).

VERSION ?= 0.1.0
IMG ?= ghcr.io/boot-operator/boot-operator:v$(VERSION)

TOOL := go run ./test/cache/tool
KUBECTL ?= $(shell command -v kubectl || echo $(TOOL) kubectl)
GENERATED := api/v1alpha1/zz_generated.deepcopy.go config/crd/bases config/rbac/role.yaml config/rbac/role_secrets.yaml \
	config/rbac/role_ironcore.yaml config/components/baremetalhost/role.yaml config/components/netboot/role.yaml \
	config/metal3/crd/metal3.io_baremetalhosts.yaml charts/boot-operator/files

# The race detector needs a C compiler; where there is none, tests run without.
RACE ?= $(shell command -v $$(go env CC) >/dev/null && test "$$(go env CGO_ENABLED)" = 1 && echo -race)
FUZZTIME ?= 5s

SHELL := /bin/bash
MAKEFLAGS += --no-print-directory

.PHONY: help
help: ## Show this help.
	@awk 'BEGIN {FS = ":.*## "} \
		/^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
		/^[a-z0-9-]+:.*## / {printf "  \033[36m%-16s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Try it

.PHONY: run
run: ## Control plane, registry, operator and samples on this machine; only Go is needed.
	$(RUN)

.PHONY: demo
demo: ## The same, and a QEMU machine that boots.
	$(RUN) --demo

# A process of its own, not `go run`, which would not pass a signal to end on.
RUN = @echo 'building test/run; the first time this takes a minute or two'; \
	mkdir -p bin && go build -o bin/run ./test/run && exec bin/run

##@ Develop

.PHONY: generate
generate: ## Generate deepcopy functions.
	$(TOOL) controller-gen object paths=./api/...

# A role of its own for what an installation may do without.
ROLE = $(TOOL) controller-gen rbac:roleName

.PHONY: manifests
manifests: ## Generate CRDs and RBAC, and their copies in the chart.
	$(TOOL) controller-gen crd paths=./api/... output:crd:dir=config/crd/bases
	$(ROLE)=boot-operator,fileName=role.yaml output:rbac:dir=config/rbac \
		paths=./internal/inventory paths=./internal/observe paths=./internal/controller/bootconfig
	$(ROLE)=boot-operator-secrets,fileName=role_secrets.yaml output:rbac:dir=config/rbac paths=./internal/prefetch
	$(ROLE)=boot-operator-ironcore,fileName=role_ironcore.yaml output:rbac:dir=config/rbac paths=./internal/controller/ironcore
	$(ROLE)=boot-operator-baremetalhost,fileName=role.yaml output:rbac:dir=config/components/baremetalhost paths=./internal/controller/host
	$(ROLE)=boot-operator-netboot,fileName=role.yaml output:rbac:dir=config/components/netboot paths=./internal/inventory paths=./internal/observe
	@set -e; all=$$(mktemp -d); trap 'rm -rf "$$all"' EXIT; set -x; \
	$(TOOL) controller-gen crd:maxDescLen=0,allowDangerousTypes=true,headerFile=config/metal3/header.txt \
		paths=github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1 output:crd:dir="$$all"; \
	cp "$$all/metal3.io_baremetalhosts.yaml" config/metal3/crd/
	@mkdir -p charts/boot-operator/files/crds
	cp config/crd/bases/*.yaml charts/boot-operator/files/crds/
	cp config/rbac/role.yaml config/rbac/role_secrets.yaml config/rbac/role_ironcore.yaml charts/boot-operator/files/
	cp config/components/baremetalhost/role.yaml charts/boot-operator/files/role_baremetalhost.yaml
	cp config/components/netboot/role.yaml charts/boot-operator/files/role_netboot.yaml
	cp config/metal3/crd/metal3.io_baremetalhosts.yaml charts/boot-operator/files/baremetalhosts.yaml
	cp config/metal3/admission/policy.yaml charts/boot-operator/files/policy.yaml

.PHONY: verify
verify: ## Fail if a generated file, go.mod or the formatting is not up to date.
	@set -e; before=$$(mktemp -d); trap 'rm -rf "$$before"' EXIT; \
	tar cf "$$before.tar" $(GENERATED); tar xf "$$before.tar" -C "$$before"; rm "$$before.tar"; \
	$(MAKE) generate manifests; \
	for path in $(GENERATED); do diff -ruN "$$before/$$path" "$$path" || stale=$$path; done; \
	test -z "$$stale" || { echo 'verify: generated files were stale; they are fresh now'; exit 1; }
	go mod tidy -diff
	@files=$$(gofmt -l $$(go list -f '{{.Dir}}' ./...)); test -z "$$files" || \
		{ printf 'verify: not formatted (make fmt):\n%s\n' "$$files"; exit 1; }

.PHONY: fmt
fmt: ## Format the code.
	$(TOOL) golangci-lint fmt

.PHONY: vet
vet: ## Run go vet.
	go vet ./...

.PHONY: lint
lint: ## Run golangci-lint, and lint the chart.
	$(TOOL) golangci-lint run
	$(TOOL) helm lint --strict charts/boot-operator

##@ Test

.PHONY: test
test: unit fuzz-smoke e2e ## Everything: unit, controllers, manifests and docs, fuzzing, and as root on Linux the machines.

# -count=1, here and below: go test's cache knows nothing of the operator that a
# test builds and starts.
.PHONY: unit
unit: controlplane # What needs no machine. Packages that start processes run without the race detector.
	go test $(RACE) -timeout 25m $$(go list ./... | grep -v '/boot-operator/test/')
	go test -count=1 -timeout 30m $$(go list ./test/... | grep -v '/test/e2e') # test/image compiles everything anew

.PHONY: fuzz-smoke
fuzz-smoke: # Each fuzz target for FUZZTIME.
	@set -euo pipefail; \
	targets=$$(go test -list '^Fuzz' ./cmd/... ./internal/... | awk ' \
		/^Fuzz/ {names[++n] = $$1} \
		$$1 == "ok" {for (i = 1; i <= n; i++) print names[i] ":" $$2; n = 0}'); \
	test -n "$$targets" || { echo 'fuzz-smoke: found no fuzz target'; exit 1; }; \
	out=$$(mktemp); trap 'rm -f "$$out"' EXIT; \
	for target in $$targets; do \
		echo "fuzz $${target%%:*}"; \
		go test -run '^$$' -fuzz "^$${target%%:*}\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x "$${target#*:}" 2>&1 | tee "$$out" || \
			{ grep -q 'context deadline exceeded' "$$out" && ! grep -q 'Failing input' "$$out"; }; \
	done # Go at times takes the end of its time for a failure: without an input that fails, nothing has

.PHONY: e2e
e2e: controlplane ## Boot QEMU machines; needs Linux, root and the packages that .ci/run installs.
	go test -v -count=1 -timeout 40m ./test/e2e/...

.PHONY: bench
bench: ## Measure against references in the same run; prints RATIO lines.
	go run ./test/bench

.PHONY: controlplane
controlplane: # Build kube-apiserver, etcd and kubectl where they are missing.
	@$(TOOL) controlplane >/dev/null

##@ Build

.PHONY: build
build: ## Build the commands into bin/.
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/ ./cmd/...

# What image builds for, and whether it pushes IMG; DIST has what it does not push.
PLATFORMS ?= linux/$(shell go env GOARCH)
PUSH ?=
DIST ?= dist
IMAGE_TOOL ?= $(shell docker buildx version >/dev/null 2>&1 && docker info >/dev/null 2>&1 && echo docker || echo ko)

.PHONY: image
image: image-$(IMAGE_TOOL) ## Build the image IMG for PLATFORMS, with docker or where it does not run with ko; PUSH=1 pushes it.

# One platform goes to docker's own images, several into a file.
.PHONY: image-docker
image-docker:
	@mkdir -p $(DIST)
	docker buildx build --platform=$(PLATFORMS) --build-arg VERSION=$(VERSION) -t '$(IMG)' \
		$(if $(PUSH),--push,$(if $(findstring $(comma),$(PLATFORMS)),--output=type=oci$(comma)dest=$(DIST)/image.tar,--load)) .

# Without PUSH an OCI layout, DIST/image. ko puts what is in kodata beside the program.
.PHONY: image-ko
image-ko: boot-programs
	@mkdir -p $(DIST); image='$(IMG)'; set -x; \
	KO_DOCKER_REPO="$${image%:*}" VERSION=$(VERSION) $(TOOL) ko build --bare --tags "$${image##*:}" --platform=$(PLATFORMS) \
		$(if $(PUSH),,--push=false --oci-layout-path=$(DIST)/image) ./cmd/boot-operator

# The network boot programs of the distribution's package ipxe, as in the Dockerfile.
IPXE_DIR ?= /usr/lib/ipxe
IPXE_PROGRAMS := ipxe.efi snponly.efi undionly.kpxe

.PHONY: boot-programs
boot-programs:
	@for program in $(IPXE_PROGRAMS); do test -r $(IPXE_DIR)/$$program || \
		{ echo "image: $(IPXE_DIR)/$$program is missing: install your distribution's package ipxe, or say IPXE_DIR="; exit 1; }; done
	@mkdir -p cmd/boot-operator/kodata/ipxe
	cp $(addprefix $(IPXE_DIR)/,$(IPXE_PROGRAMS)) cmd/boot-operator/kodata/ipxe/

.PHONY: build-installer
build-installer: ## Write DIST/install.yaml: CRDs, RBAC and the operator IMG in one file; and metadata.yaml, for clusterctl.
	@mkdir -p $(DIST)
	$(MANIFESTS) >$(DIST)/install.yaml
	cp config/metadata.yaml $(DIST)/metadata.yaml

comma := ,

##@ Deploy, to the cluster of the current kubeconfig

# The rendered operator, with IMG as its image.
MANIFESTS = set -o pipefail; $(TOOL) kustomize build config/default | sed 's|image: ghcr.io/boot-operator/boot-operator:.*|image: $(IMG)|'

.PHONY: install
install: ## Install the CRDs.
	$(KUBECTL) apply --server-side -f config/crd/bases

.PHONY: uninstall
uninstall: ## Remove the CRDs, and with them every object of ours.
	$(KUBECTL) delete --ignore-not-found -f config/crd/bases

.PHONY: deploy
deploy: ## Install the CRDs and the operator IMG.
	$(MANIFESTS) | $(KUBECTL) apply --server-side -f -

.PHONY: undeploy
undeploy: ## Remove what deploy installed.
	$(MANIFESTS) | $(KUBECTL) delete --ignore-not-found -f -
