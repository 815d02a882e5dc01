# SPDX-License-Identifier: GPL-2.0-or-later
"""The file systems: that of a host, and that of a finished dump."""
