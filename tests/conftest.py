# SPDX-License-Identifier: GPL-2.0-or-later
"""What all tests have: the fixtures of fixtures/, one noun a module."""

from __future__ import annotations

pytest_plugins = [
    f"tests.fixtures.{name}"
    for name in (
        "bytecode",  # before the others are imported
        "no_config",
        "array_kinds",
        "collecting",
        "control_bench",
        "conversions",
        "forks",
        "fuzz_time",
        "hosts",
        "interrupt",
        "kept_identity",
        "linux_files",
        "loop_devices",
        "object_servers",
        "order",
        "patience",
        "shells",
        "small_dumps",
        "unicorn_guests",
        "written_dumps",
    )
]
