# SPDX-License-Identifier: GPL-2.0-or-later
"""The file systems: of a host, and of a finished dump."""
