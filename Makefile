# SPDX-License-Identifier: GPL-2.0-or-later
#
#   make demo         from a clone to a live, verified dump of a running machine
#   make test         all tests
#   make lint         style and types
#   make model        the protocol's model alone
#   make exact        200 dumps in a row under full load, each compared byte for byte
#   make test-qemu    20 live dumps of a Debian guest under QEMU, and what goes wrong around one
#   make kill-points  100 hosts killed at random moments, what they left compared
#   make fuzz         the parsers for FUZZ_SECONDS (300)
#   make fuzz-control the control interface: FUZZ_REQUESTS (1000000), the core under AddressSanitizer
#   make bench-pause  how long the machine stands still: swap, mprotect, fork
#   make bench-sweep  the sweep's rate beside plain pwrite
#   make bench-inspect  first answer, read rate, kdump rate: beside gdb's end, tmpfs, makedumpfile
#   make setup        only get and build what the others need
#   make clean        remove what make made
#
# BENCH_TARGET=FILE is overwritten by bench-sweep.
# VENV=DIR takes another virtual environment, ARGS=... goes on to pytest or the benchmark.

VENV ?= .venv
ARGS ?=

python := $(VENV)/bin/python
pins := $(VENV)/livedump-pins.stamp
native := build/native.stamp

# Tests and demo start programs of their own, which must find the same Python and this tree.
export LIVEDUMP_PYTHON := $(abspath $(python))
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

.PHONY: all demo test lint model exact test-qemu kill-points fuzz fuzz-control bench-inspect bench-pause bench-sweep setup packages guest clean

all: setup

setup: $(native) guest

packages:
	@scripts/setup packages

$(pins): requirements.txt requirements-test.txt scripts/setup | packages
	scripts/setup venv $(VENV)
	@touch $@

$(native): $(wildcard native/*.c native/*.h native/shim/*) native/build_native.py $(pins)
	$(python) native/build_native.py
	@mkdir -p $(@D) && touch $@

guest: | packages
	@$(MAKE) --no-print-directory -C guest

demo: setup
	@scripts/demo

# The limit is for a hang that the tests' own deadlines do not end.
test: setup
	timeout --foreground --signal=INT --kill-after=60 1200 $(python) -m pytest $(ARGS)

model: $(pins)
	$(python) -m pytest tests/model $(ARGS)

lint: $(native)
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy

exact: setup
	LIVEDUMP_DUMPS=200 $(python) -m pytest -s -k many_dumps \
		tests/integration/test_exactness.py $(ARGS)

test-qemu: setup
	LIVEDUMP_QEMU_DUMPS=20 $(python) -m pytest -s tests/qemu $(ARGS)

kill-points: setup
	LIVEDUMP_KILLS=100 $(python) -m pytest -s tests/faults/test_kill_points.py $(ARGS)

FUZZ_SECONDS ?= 300

fuzz: setup
	LIVEDUMP_FUZZ_SECONDS=$(FUZZ_SECONDS) $(python) -m pytest -s tests/property $(ARGS)

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

bench-inspect: setup
	$(python) bench/snapshot.py $(ARGS)

bench-pause: setup
	$(python) bench/pause.py $(ARGS)

BENCH_TARGET ?= build/bench-target

bench-sweep: setup
	$(python) bench/sweep.py $(BENCH_TARGET) $(ARGS)
	@rm -f build/bench-target

clean:
	rm -rf build dist livedumpfs.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f livedumpfs/_native.c livedumpfs/_native*.so livedumpfs/_shim*.so livedumpfs/*.o native/*.o
	find livedumpfs native tests bench -name __pycache__ -prune -exec rm -rf {} +
	test ! -f guest/Makefile || $(MAKE) --no-print-directory -C guest clean
	$(MAKE) --no-print-directory -C guest/linux clean
	test "$(VENV)" != .venv || rm -rf .venv
