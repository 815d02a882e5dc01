# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel of a Linux guest has left in its memory, for each processor."""
