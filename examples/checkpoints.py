# SPDX-License-Identifier: GPL-2.0-or-later
"""Ways to checkpoint a training loop. Each has `begin`, called between two steps, and `wait`, until
the checkpoint that is under way is whole."""

from __future__ import annotations

import os
import shutil
import threading
import warnings
from typing import Any

import numpy as np
from models import NumpyTrainer, TorchTrainer

from livedumpfs import Arena, DumpSettings, LiveDump, StepBarrier
from livedumpfs.compression import Compression

Trainer = NumpyTrainer | TorchTrainer
PATIENCE_S = 600.0


class Way:
    """No checkpoints."""

    def __init__(self, arena: Arena, trainer: Trainer, path: str) -> None:
        self.arena, self.trainer, self.path = arena, trainer, path
        self.boundary = StepBarrier(PATIENCE_S)
        """Where the loop stands for an instant: between two steps."""
        self.error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Of this step."""

    def apart(self, work: Any) -> None:
        """On a thread of its own, after the one before it."""
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(work,))
        self._thread.start()

    def _run(self, work: Any) -> None:
        try:
            work()
        except BaseException as error:
            self.error = error

    def wait(self) -> None:
        """The loop stands meanwhile if that is wanted. What went wrong is raised here."""
        while self._thread and self._thread.is_alive():
            self.boundary.step()
            self._thread.join(0.001)
        if self.error:
            raise self.error


class LiveWay(Way):
    """livedumpfs: START stands at the boundary, all else is done beside the loop."""

    compression: Compression = "zstd"
    """Of a Zarr group."""

    def __init__(self, arena: Arena, trainer: Trainer, path: str) -> None:
        super().__init__(arena, trainer, path)
        settings = DumpSettings(
            quiesce_deadline=PATIENCE_S, force=True, compression=self.compression
        )
        held = LiveDump(arena, writers=self.boundary)
        self._save = lambda: held.save(path, settings)

    def begin(self) -> None:
        """See Way."""
        self.apart(self._save)


class PlainLiveWay(LiveWay):
    """Without compression: the loop needs the processors."""

    compression: Compression = "none"


class BlockingWay(Way):
    """torch.save, or numpy.savez: the loop stands until all is written."""

    def begin(self) -> None:
        """See Way."""
        state = self.trainer.state()
        if isinstance(self.trainer, TorchTrainer):
            import torch

            torch.save(state, self.path)
        else:
            np.savez(self.path, **state)
        make_durable(self.path)


def make_durable(path: str) -> None:
    """As all of these ways do with what they write."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class CopyWay(Way):
    """The loop copies the state, and a thread writes the copy."""

    def begin(self) -> None:
        """See Way."""
        self.wait()
        copy = {name: np.copy(array) for name, array in self.trainer.arrays.items()}
        self.apart(lambda: self._write(copy))

    def _write(self, copy: dict[str, Any]) -> None:
        np.savez(self.path, **copy)
        make_durable(self.path)


class DcpWay(Way):
    """torch.distributed.checkpoint.async_save: the loop copies, a thread writes."""

    def __init__(self, arena: Arena, trainer: Trainer, path: str) -> None:
        import torch

        super().__init__(arena, trainer, path)
        store = torch.distributed.FileStore(f"{path}.store", 1)
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        self._future: Any = None

    def begin(self) -> None:
        """See Way."""
        import torch.distributed.checkpoint as dcp

        self.wait()
        shutil.rmtree(self.path, ignore_errors=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._future = dcp.async_save(self.trainer.state(), checkpoint_id=self.path)

    def wait(self) -> None:
        """See Way."""
        if self._future:
            self._future.result()
            self._future = None


WAYS: dict[str, tuple[type[Way], str]] = {
    "none": (Way, ""),
    "livedumpfs, Zarr": (LiveWay, "state.zarr"),
    "livedumpfs, Zarr without compression": (PlainLiveWay, "state.zarr"),
    "livedumpfs, Icechunk": (LiveWay, "state.icechunk"),
    "livedumpfs, elf": (LiveWay, "state.elf"),
    "numpy.savez of a copy, on a thread": (CopyWay, "copy.npz"),
}
"""Those that need no PyTorch: by name, and the checkpoint's name."""
NUMPY_WAYS: dict[str, tuple[type[Way], str]] = {"numpy.savez": (BlockingWay, "state.npz")}
TORCH_WAYS: dict[str, tuple[type[Way], str]] = {
    "torch.save": (BlockingWay, "state.pt"),
    "DCP async_save": (DcpWay, "state.dcp"),
}
