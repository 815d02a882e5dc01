# SPDX-License-Identifier: GPL-2.0-or-later
"""Ways to copy a memory as of one instant, in C: ours, and the common ones."""
