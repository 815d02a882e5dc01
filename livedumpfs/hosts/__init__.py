# SPDX-License-Identifier: GPL-2.0-or-later
"""Which hosts run on this computer, which of our mounts it has, and which host is meant."""
