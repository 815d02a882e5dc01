# SPDX-License-Identifier: GPL-2.0-or-later
"""A RISC-V computer in this process, and Linux on it."""
