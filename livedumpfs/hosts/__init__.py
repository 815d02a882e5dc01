# SPDX-License-Identifier: GPL-2.0-or-later
"""Which hosts and livedumpfs mounts this computer has, and which host a command means."""
