# SPDX-License-Identifier: GPL-2.0-or-later
"""What this computer has of what livedumpfs needs. Nothing is changed, mounted or loaded."""

from __future__ import annotations

from livedumpfs.doctor.checklist import CHECKS, examine
from livedumpfs.doctor.finding import PARTS, Finding, Health
from livedumpfs.doctor.system import System

__all__ = ["CHECKS", "PARTS", "Finding", "Health", "System", "examine"]
