# SPDX-License-Identifier: GPL-2.0-or-later
"""The C core for Python: its functions (capi.py), and the arena that it works on (arena.py)."""
