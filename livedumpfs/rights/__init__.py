# SPDX-License-Identifier: GPL-2.0-or-later
"""Opening and naming files with the rights of another process. On the standard library
alone, because the helper is a script that is run isolated."""
