# Each target does all the set-up that it needs; a second run repeats none of it.
#   make demo    bakes specs/web-server.yaml on the local cloud, and boots the image
#   make check   the tests that start no cloud, linters, types, layers: two minutes on two idle cores
#   make test    check, the tests that start a local cloud, and those that boot real instances (root)
#   make test-emulated   the tests of whole systems in QEMU without KVM, which take minutes each (root)
#   make reliability   kills, stops, faults, planted secrets, bad input: a table that fails where it is short (root)
#   make site    the docs as a site
#   make python-versions   the default tests with newer Pythons (root)
#   make fuzz    readers with examples by the ten thousand (EXAMPLES=20000)
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# What the local cloud needs of Debian, and what its tests need beside that.
SYSTEM := systemd-container slirp4netns mmdebstrap debian-archive-keyring iproute2 mount util-linux e2fsprogs fdisk \
          openssh-client curl ca-certificates git
# What a plain user needs beside SYSTEM; root needs QEMU for disks with a boot loader.
SYSTEM_ROOTLESS := uidmap qemu-system-x86 qemu-utils
SYSTEM_TEST := openssh-server awscli packer zsh fish xfsprogs chromium qemu-system-arm qemu-efi-aarch64 $(SYSTEM_ROOTLESS)

.PHONY: setup model site demo check test test-emulated lint types bench bench-smoke reliability python-versions fuzz docs \
        screenshots constraints clean
.DELETE_ON_ERROR:

# Tests that boot nothing. Of these, those that start a local cloud in their process are in `make test`.
UNMARKED := not machine and not server and not aws

setup: .setup/system .setup/python

# $(1): packages. Installs those that are missing, and asks apt nothing where none is.
define install
	@missing=""; for package in $(1); do \
	  dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
	  echo "installing$$missing"; \
	  apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install $$missing; \
	fi
endef

.setup/system: Makefile
	@mkdir -p .setup
	$(call install,$(SYSTEM))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "imagepipe needs Python 3.11 or newer"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install python3-venv; }
	@touch $@

.setup/system-test: .setup/system
	$(call install,$(SYSTEM_TEST))
	@touch $@

# imagepipe and its local cloud alone: all that `make demo` needs.
.setup/local: .setup/system pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing imagepipe and its packages into .venv: a minute or two"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[local]'
	@$(BIN)/python -m compileall -q imagepipe
	@touch $@

.setup/python: .setup/local
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[local,dev]'
	@touch $@

# yaml-language-server, locked by hashes: what editors start, for the tests of completion and checks. npm is the machine's
# own, else Debian's.
.setup/language-server/ready: $(wildcard tests/docs/language-server/*.json) | .setup/system
	@command -v npm >/dev/null || \
	  { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install npm; }
	@mkdir -p $(@D)
	@cp $^ $(@D)
	npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund
	@touch $@

demo: .setup/local
	$(BIN)/imagepipe demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

check: setup .setup/system-test lint types
	$(BIN)/pytest -q -n 5 --dist worksteal -m "$(UNMARKED) and not cloud"

# Four files of tests at once, each with clouds of its own: 17 minutes on two cores. A guest's own boot is most of that, so
# a test that is not about the machine uses one that does not boot (the fixture `quick`). The longest files begin first
# (tests/machine/conftest.py); xdist would begin with the files that have the most tests.
test: check site .setup/language-server/ready
	$(BIN)/pytest -q -n 5 --dist worksteal -m "cloud and $(UNMARKED)"
	$(BIN)/pytest -q -m "machine and not emulated or server" -n 4 --dist loadfile --no-loadscope-reorder

# Whole systems in QEMU without KVM: minutes for each test. QEMU's shorter tests are in `make test`.
test-emulated: setup .setup/system-test
	$(BIN)/pytest -q -m "machine and emulated" -n 2 --dist load

# Figures on an installed wheel with its bytecode compiled, as users have it. The report is in .setup/bench/.
# BENCHMARKS='validate family' runs some of them.
BENCH := .setup/bench-env
BENCHMARKS ?=

.setup/bench-env/ready: .setup/python $(shell find imagepipe -name '*.py' -newer .setup/bench-env/ready 2>/dev/null | head -1)
	@rm -rf .setup/wheel
	$(BIN)/python -m hatchling build -t wheel -d .setup/wheel >/dev/null
	@test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --constraint constraints.txt --force-reinstall --no-deps .setup/wheel/*.whl
	$(BENCH)/bin/python -m pip install --quiet --constraint constraints.txt "$$(echo .setup/wheel/*.whl)[local,bench]" pytest
	@touch $@

bench: .setup/bench-env/ready .setup/system-test
	$(BENCH)/bin/python benchmarks/run.py --out .setup/bench $(BENCHMARKS)

# A short run of the quick ones, to see that they work; the figures mean little.
bench-smoke: .setup/bench-env/ready .setup/system-test
	$(BENCH)/bin/python benchmarks/run.py --out .setup/bench-smoke --smoke

# All that is said of reliability, tried: kills at every line of journals, stops in every stage, a storm of faults, planted
# secrets, bad input; under an hour. What was tried is kept in .setup/, and not tried again as long as the code is the same.
reliability: setup .setup/system-test
	$(BIN)/python -m tests.reliability --state .setup/reliability

# The readers of specs, manifests, journals and events, with other examples each time, and far more of them than in `make check`.
# The default tests with the Pythons of newer Debian releases, each in a folder of its own (root). RELEASES='forky' runs one.
python-versions:
	tests/python_versions.sh $(RELEASES)

fuzz: setup
	IMAGEPIPE_FUZZ_EXAMPLES=$(or $(EXAMPLES),20000) $(BIN)/pytest -q -n 2 tests/spec/test_fuzz.py tests/engine/test_fuzz.py tests/bundle/test_fuzz.py

# EC2's API model without all that we do not call: again after an upgrade of botocore, or a new call.
model: setup
	$(BIN)/python -m imagepipe.cloud.trimmed_model

docs: setup
	$(BIN)/python -m docs.generate.spec docs/reference/spec.md
	$(BIN)/python -m docs.generate.commands docs/reference/commands.md
	$(BIN)/python -m docs.generate.man docs/reference/imagepipe.1
	$(BIN)/python -m docs.generate.completion imagepipe/cli/completions
	$(BIN)/python -m docs.generate.help imagepipe/cli/help
	$(BIN)/python -m docs.generate.local_cloud docs/reference/local-cloud.md
	$(BIN)/python -m docs.generate.diagrams docs/images

# The docs as a site, in .setup/site/. Warnings are errors: a link that leads nowhere, a page that no list has.
.setup/site-tools: .setup/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[site]'
	@touch $@

site: .setup/site-tools
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs .setup/site
	@echo "the site is .setup/site/index.html"

# The screenshots of the docs, from real builds on a local cloud of their own: needs root, some five minutes.
screenshots: .setup/system-test .setup/site-tools
	$(BIN)/python -m docs.generate.screenshots docs/images

# constraints.txt: what set-up installs here. requirements.txt: what imagepipe alone needs, with hashes, for every platform.
constraints: setup
	{ echo '# What set-up installs, so that it is the same tomorrow. Made by: make constraints'; \
	  $(BIN)/python -m pip freeze --exclude-editable; } >constraints.txt
	@test -x .setup/uv/bin/uv || { $(PYTHON) -m venv .setup/uv && .setup/uv/bin/python -m pip install --quiet uv; }
	{ echo '# imagepipe without extras, locked by hashes: pip install --require-hashes -r requirements.txt'; \
	  echo '# Made by: make constraints'; \
	  .setup/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    --no-emit-index-url --constraint constraints.txt pyproject.toml; } >requirements.txt

clean:
	rm -rf .venv .setup .mypy_cache .ruff_cache .pytest_cache
