# SPDX-License-Identifier: GPL-2.0-or-later
"""Ways to take a memory's copy of one instant, in C: ours and those that people use instead."""
