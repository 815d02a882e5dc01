# SPDX-License-Identifier: GPL-2.0-or-later
"""Which hosts run on this computer, and which of them is meant."""
