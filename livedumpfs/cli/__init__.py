# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: the only part that prints or exits. Each group of commands has one file."""
