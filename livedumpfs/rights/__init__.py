# SPDX-License-Identifier: GPL-2.0-or-later
"""Opening and naming files with the rights of another process.

This room uses the standard library alone: opener.py runs as a script, isolated, with folder.py
beside it.
"""
