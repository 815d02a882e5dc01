# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of arrays as other programs have them: .npy, .npz, .safetensors."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import zipfile
from typing import Any, Final, Protocol

import numpy as np

from livedumpfs.core.array_info import ArrayInfo
from livedumpfs.dumpfile import DumpFile, OnProgress, Output
from livedumpfs.errors import TargetError, UsageError, os_cause
from livedumpfs.named.dump_arrays import DumpArrays
from livedumpfs.named.extra import extra
from livedumpfs.named.save_record import KEY, bytes_of
from livedumpfs.targets.names import incomplete_name

_PIECE: Final = 4 << 20
_OF_SAFETENSORS: Final = (
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16",
    "float32", "float64", "complex64",
)  # fmt: skip


class _Writable(Protocol):
    def write(self, data: bytes | memoryview, /) -> Any: ...


class _Progress:
    """Of several arrays."""

    def __init__(self, arrays: DumpArrays, tell: OnProgress | None) -> None:
        self._total = sum(map(bytes_of, arrays.named))
        self._done = 0
        self._tell = tell

    def add(self, size: int) -> None:
        """So many bytes more."""
        self._done += size
        if self._tell:
            self._tell(self._done, self._total)


def write_npy(arrays: DumpArrays, output: Output, progress: OnProgress | None = None) -> None:
    """One array. UsageError: there are several. OSError: the dump's target cannot be read; errors
    of `output`."""
    if len(arrays.named) != 1:
        names = ", ".join(repr(one.name) for one in arrays.named[:5])
        raise UsageError(
            f"a .npy file has one array, and the dump has {len(arrays.named)} ({names}, ...)",
            hint="name one of them; .npz takes all",
        )
    _write_array(arrays, arrays.named[0], output, _Progress(arrays, progress))
    output.finish()


def write_npz(arrays: DumpArrays, output: Output, progress: OnProgress | None = None) -> None:
    """All of them, as numpy.savez does. Errors as write_npy."""
    shown = _Progress(arrays, progress)
    with zipfile.ZipFile(_AsFile(output), "w", zipfile.ZIP_STORED) as archive:
        for info in arrays.named:
            member = zipfile.ZipInfo(f"{info.name}.npy")
            with archive.open(member, "w", force_zip64=True) as file:
                _write_array(arrays, info, file, shown)
    output.finish()


def _write_array(arrays: DumpArrays, info: ArrayInfo, file: _Writable, progress: _Progress) -> None:
    said = {
        "descr": np.lib.format.dtype_to_descr(info.dtype),
        "fortran_order": False,
        "shape": info.shape,
    }
    head = io.BytesIO()
    try:
        np.lib.format.write_array_header_1_0(head, said)
    except ValueError:  # too long for that version
        head = io.BytesIO()
        np.lib.format.write_array_header_2_0(head, said)
    file.write(head.getvalue())
    size = bytes_of(info)
    buffer = memoryview(bytearray(min(_PIECE, size)))
    for at in range(0, size, _PIECE):
        piece = buffer[: min(_PIECE, size - at)]
        arrays.read_into(info.offset + at, piece)
        file.write(piece)
        progress.add(len(piece))


class _AsFile(io.RawIOBase):
    """An Output for zipfile, which then does not seek."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: Any) -> int:
        """All of it."""
        view = memoryview(data).cast("B")
        self._output.write(view)
        return len(view)


def write_safetensors(arrays: DumpArrays, path: str, dump: DumpFile) -> None:
    """All of them, by the library safetensors, which maps what is one piece of an `elf` or `raw`
    dump, and has arrays of other dumps in memory. TargetError EEXIST and others; UsageError: one of
    a dtype that the format does not have; MissingPackage."""
    for info in arrays.named:
        if info.dtype.names is not None or info.dtype.name not in _OF_SAFETENSORS:
            raise UsageError(
                f"array {info.name!r} of dtype {info.dtype} cannot be in a safetensors file",
                hint=".npz keeps any dtype",
            )
    library = extra("safetensors.numpy", "safetensors")
    said = {"dump_id": dump.dump_id.hex(), "verdict": dump.verdict, "instant_ns": dump.instant_ns}
    new = incomplete_name(path)
    try:
        _make(path, new)
        tensors = {info.name: arrays.load(info) for info in arrays.named}
        library.save_file(tensors, new, metadata={KEY: json.dumps(said)})
        _sync(new)
        os.link(new, path)  # which replaces nothing
    except OSError as error:
        raise _cannot(path, error) from error
    except extra("safetensors").SafetensorError as error:
        raise TargetError(
            f"cannot write {path}: {' '.join(str(error).split())}", errno=errno.EIO
        ) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(new)


def _make(path: str, new: str) -> None:
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os_cause(errno.EEXIST))
    with open(new, "xb"):
        pass


def _sync(path: str) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _cannot(path: str, error: OSError) -> TargetError:
    code = error.errno or errno.EIO
    return TargetError(f"cannot make {path}: {os_cause(code)}", errno=code)
