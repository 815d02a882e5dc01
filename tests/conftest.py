# SPDX-License-Identifier: GPL-2.0-or-later
"""What all tests have: the fixtures of fixtures/, one noun a module."""

from __future__ import annotations

pytest_plugins = [
    f"tests.fixtures.{name}"
    for name in (
        "bytecode",  # before the others are imported
        "control_bench",
        "conversions",
        "fuzz_time",
        "hosts",
        "interrupt",
        "loop_devices",
        "order",
        "patience",
        "shells",
        "small_dumps",
        "unicorn_guests",
        "written_dumps",
    )
]
