# SPDX-License-Identifier: GPL-2.0-or-later
"""Page tables: from virtual addresses to physical ones, and all that a kernel has mapped."""
