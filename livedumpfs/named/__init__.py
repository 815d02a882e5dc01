# SPDX-License-Identifier: GPL-2.0-or-later
"""Named arrays outside of dumps: Zarr groups, Icechunk repositories, and files of arrays.

The libraries are extras, and loaded when they are needed first.
"""
