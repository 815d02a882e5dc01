# SPDX-License-Identifier: GPL-2.0-or-later
"""Stores of dumps: content-addressed chunks and an index for each dump, in casync's format.

    with open_store("/backup/vm1") as store:
        for name in store.names():
            print(name, store.record(name).verdict)

A store holds any number of images. An image is the file that a dump of format `elf` would have
written, cut into chunks of one size; equal chunks are kept once. docs/store.md has the layout.
"""

from __future__ import annotations

from livedumpfs.stores.caibx import Index
from livedumpfs.stores.chunk import CHUNK_SIZE, CHUNK_SIZES, chunk_name
from livedumpfs.stores.gc import Collected, collect
from livedumpfs.stores.image_place import image_place, is_whole_store, open_image
from livedumpfs.stores.listing import StoredDump, StoreTotals, list_dumps, totals
from livedumpfs.stores.record import DumpRecord
from livedumpfs.stores.retention import Retention, kept
from livedumpfs.stores.store import Store, create_store, is_store, open_store, takes_dumps
from livedumpfs.stores.store_image import StoreImage

__all__ = [
    "CHUNK_SIZE",
    "CHUNK_SIZES",
    "Collected",
    "DumpRecord",
    "Index",
    "Retention",
    "Store",
    "StoreImage",
    "StoreTotals",
    "StoredDump",
    "chunk_name",
    "collect",
    "create_store",
    "image_place",
    "is_store",
    "is_whole_store",
    "kept",
    "list_dumps",
    "open_image",
    "open_store",
    "takes_dumps",
    "totals",
]
