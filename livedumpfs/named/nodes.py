# SPDX-License-Identifier: GPL-2.0-or-later
"""Documents of Zarr arrays and groups, as zarr-python writes them; and which arrays Zarr can hold.

They are made in memory, and written where and when we want: zarr-python itself writes a group's
document first, and a group that has one looks finished.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from livedumpfs.compression import COMPRESSION
from livedumpfs.core.array_info import ArrayInfo
from livedumpfs.errors import UsageError
from livedumpfs.named.cut import Cut
from livedumpfs.named.extra import extra

DOCUMENT: Final = "zarr.json"
"""Of a group or an array, in its folder."""
_LEVEL: Final = 1
_CODECS: Final = {"zstd": "zstd", "zlib": "zlib", "snappy": "snappy"}
"""Compressions of dumps as Blosc names them."""
_LONGEST: Final = 255
"""Bytes of a file's name."""


def stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Of the elements in Zarr: little-endian, as all of its readers can."""
    return dtype.newbyteorder("<")


def as_stored(memory: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Elements as they are written."""
    return memory.astype(stored_dtype(memory.dtype), copy=False)


def compressor(compression: str, level: int, itemsize: int) -> Any:
    """Blosc, which sorts the bytes of the elements by their place first. None: none. UsageError:
    Zarr has no such compression."""
    if compression == "none":
        return None
    if compression not in _CODECS:
        raise UsageError(
            f"Zarr has no compression {compression}", hint="zstd, zlib, snappy or none"
        )
    blosc = extra("zarr.codecs")
    return blosc.BloscCodec(
        cname=_CODECS[compression],
        clevel=min(level or _LEVEL, 9),
        shuffle="shuffle",
        typesize=min(itemsize, 255),
    )


def check_name(name: str) -> None:
    """UsageError: no array of a Zarr group can have that name."""
    wrong = (
        "/" in name
        or "\0" in name
        or not name.strip(".")
        or name.startswith("__")
        or name == DOCUMENT
        or not _is_short_text(name)
    )
    if wrong:
        raise UsageError(
            f"array {name!r} cannot be in a Zarr group: its name cannot be that of a folder there",
            hint="formats elf and kdump keep any name",
        )


def _is_short_text(name: str) -> bool:
    try:
        return len(name.encode()) <= _LONGEST
    except UnicodeEncodeError:
        return False


def array_document(
    info: ArrayInfo, cut: Cut, compression: str = COMPRESSION, level: int = 0
) -> bytes:
    """The document of the array. UsageError: Zarr cannot hold it."""
    check_name(info.name)
    dtype = stored_dtype(info.dtype)
    if dtype.names is not None and not _is_packed(dtype):
        raise _cannot(info, "its fields have a shape, or gaps between them")
    zarr, storage = extra("zarr"), extra("zarr.storage")
    memory = storage.MemoryStore()
    # A type that can hold any number has 0 for what was not written, others what zarr-python takes.
    plain = {"fill_value": 0} if dtype.kind in "biufc" else {}
    with quiet():
        try:
            zarr.create_array(
                memory,
                name="a",
                shape=info.shape,
                chunks=cut.chunk,
                shards=cut.shard,
                dtype=dtype,
                compressors=compressor(compression, level, dtype.itemsize),
                dimension_names=info.dims or default_dims(info),
                **plain,
            )
        except UsageError:
            raise
        except (TypeError, ValueError) as error:
            raise _cannot(info, " ".join(str(error).split())) from error
    return bytes(read(memory, f"a/{DOCUMENT}") or b"")


def _cannot(info: ArrayInfo, why: str) -> UsageError:
    return UsageError(
        f"array {info.name!r} of dtype {info.dtype} cannot be in a Zarr group: {why}",
        hint="formats elf and kdump keep any dtype",
    )


def _is_packed(dtype: np.dtype[Any]) -> bool:
    """Fields that are numbers or text, one behind the other."""
    end = 0
    for name in dtype.names or ():
        field, offset = dtype.fields[name][:2]  # type: ignore[index]
        if field.subdtype or offset != end or (field.names is not None and not _is_packed(field)):
            return False
        end += field.itemsize
    return end == dtype.itemsize


def default_dims(info: ArrayInfo) -> tuple[str, ...]:
    """One name each for all dimensions of all arrays: xarray takes those of one name for one."""
    return tuple(f"{info.name}_dim_{number}" for number in range(len(info.shape)))


def can_shard(dtype: np.dtype[Any]) -> bool:
    """zarr-python cannot write shards of records and of bytes without a meaning."""
    return dtype.kind != "V"


def group_document(attributes: Mapping[str, Any]) -> bytes:
    """The document of a group."""
    zarr, storage = extra("zarr"), extra("zarr.storage")
    memory = storage.MemoryStore()
    zarr.create_group(memory, attributes=dict(attributes), zarr_format=3)
    return bytes(read(memory, DOCUMENT) or b"")


def read(store: Any, key: str) -> bytes | None:
    """The bytes of a key of a Zarr store; None: there are none."""
    sync, buffer = extra("zarr.core.sync").sync, extra("zarr.core.buffer")
    found = sync(store.get(key, buffer.default_buffer_prototype()))
    return None if found is None else bytes(found.to_bytes())


def write(store: Any, key: str, data: bytes) -> None:
    """The bytes of a key of a Zarr store."""
    sync, buffer = extra("zarr.core.sync").sync, extra("zarr.core.buffer")
    sync(store.set(key, buffer.default_buffer_prototype().buffer.from_bytes(data)))


def delete(store: Any, key: str) -> None:
    """Take a key away, if it is there."""
    extra("zarr.core.sync").sync(store.delete(key))


def open_array(store: Any, name: str, mode: str) -> Any:
    """A zarr.Array that writes each chunk, also one of zeros."""
    with quiet():
        found = extra("zarr").open_array(store, path=name, mode=mode)
    return found.with_config({"write_empty_chunks": True})


@contextmanager
def quiet() -> Iterator[None]:
    """Without zarr-python's warnings of types that Zarr's specification does not have yet; the
    documents say which."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", extra("zarr.errors").UnstableSpecificationWarning)
        yield
