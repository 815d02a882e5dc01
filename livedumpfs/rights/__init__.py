# SPDX-License-Identifier: GPL-2.0-or-later
"""Opening and naming files with the rights of another process.

The standard library alone: opener.py is run as a script, isolated, with folder.py beside it.
"""
