# SPDX-License-Identifier: GPL-2.0-or-later
"""A small network and its optimizer (Adam), whose whole state lies in an arena: with PyTorch where
that is installed, else with numpy."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np

from livedumpfs import Arena

HAS_TORCH = importlib.util.find_spec("torch") is not None
RATE, BETA1, BETA2, SMALL = 1e-3, 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Shape:
    """Square layers, with tanh between them."""

    width: int
    layers: int
    batch: int

    @property
    def state_bytes(self) -> int:
        """Parameters, and Adam's two moments of each."""
        return 3 * 4 * self.layers * (self.width + 1) * self.width


def make_arena(shape: Shape) -> Arena:
    """Room for the state."""
    return Arena(shape.state_bytes + (shape.layers * 6 + 1) * 8192)


def named_arrays(arena: Arena, shape: Shape) -> dict[str, Any]:
    """All arrays of the state: those that the arena has (it was loaded), else new ones."""
    if arena.arrays:
        return dict(arena.arrays)
    random = np.random.default_rng(0)
    found: dict[str, Any] = {"steps": arena.array("i8", (1,), name="steps")}
    for layer in range(shape.layers):
        for kind, size in (("weight", (shape.width, shape.width)), ("bias", (shape.width,))):
            for part in ("", ".exp_avg", ".exp_avg_sq"):
                name = f"layer{layer}.{kind}{part}"
                found[name] = arena.array("f4", size, name=name)
        weight = found[f"layer{layer}.weight"]
        weight[:] = random.standard_normal(weight.shape, dtype=np.float32) / shape.width**0.5
    return found


def batch_of(shape: Shape, step: int) -> tuple[Any, Any]:
    """Input and target of a step: the same whenever that step is made."""
    x = np.random.default_rng(step).standard_normal((shape.batch, shape.width), dtype=np.float32)
    return x, np.roll(x, 1, axis=1)


class NumpyTrainer:
    """By hand, in place."""

    def __init__(self, arena: Arena, shape: Shape) -> None:
        self.shape = shape
        self.arrays = named_arrays(arena, shape)
        self.steps = self.arrays["steps"]

    def step(self) -> float:
        """One step; the loss."""
        self.steps += 1
        x, target = batch_of(self.shape, int(self.steps[0]))
        outputs = [x]
        for layer in range(self.shape.layers):
            weight, bias = self._of(layer)
            outputs.append(np.tanh(outputs[-1] @ weight + bias))
        error = outputs[-1] - target
        slope = 2 * error / error.size
        for layer in reversed(range(self.shape.layers)):
            slope = slope * (1 - outputs[layer + 1] ** 2)
            gradients = outputs[layer].T @ slope, slope.sum(axis=0)
            slope = slope @ self._of(layer)[0].T
            for kind, gradient in zip(("weight", "bias"), gradients, strict=True):
                self._adam(f"layer{layer}.{kind}", gradient)
        return float((error**2).mean())

    def _of(self, layer: int) -> tuple[Any, Any]:
        return self.arrays[f"layer{layer}.weight"], self.arrays[f"layer{layer}.bias"]

    def _adam(self, name: str, gradient: Any) -> None:
        first, second = self.arrays[f"{name}.exp_avg"], self.arrays[f"{name}.exp_avg_sq"]
        first *= BETA1
        first += (1 - BETA1) * gradient
        second *= BETA2
        second += (1 - BETA2) * gradient**2
        done = int(self.steps[0])
        rate = RATE * (1 - BETA2**done) ** 0.5 / (1 - BETA1**done)
        self.arrays[name] -= np.float32(rate) * first / (np.sqrt(second) + np.float32(SMALL))

    def state(self) -> dict[str, Any]:
        """What a checkpoint has."""
        return self.arrays


class TorchTrainer:
    """The modules and the optimizer of PyTorch, over the same arrays."""

    def __init__(self, arena: Arena, shape: Shape) -> None:
        import torch

        self._torch = torch
        self.shape = shape
        self.arrays = named_arrays(arena, shape)
        self.steps = self.arrays["steps"]
        tensors = {name: torch.from_numpy(array) for name, array in self.arrays.items()}
        self.parameters = {
            name: torch.nn.Parameter(tensor)
            for name, tensor in tensors.items()
            if name.endswith(("weight", "bias"))
        }
        self.optimizer = torch.optim.Adam(self.parameters.values(), lr=RATE, foreach=False)
        for name, parameter in self.parameters.items():
            self.optimizer.state[parameter] = {
                "step": torch.tensor(float(self.steps[0])),
                "exp_avg": tensors[f"{name}.exp_avg"],
                "exp_avg_sq": tensors[f"{name}.exp_avg_sq"],
            }

    def step(self) -> float:
        """One step; the loss."""
        torch = self._torch
        self.steps += 1
        x, target = map(torch.from_numpy, batch_of(self.shape, int(self.steps[0])))
        for layer in range(self.shape.layers):
            weight, bias = (self.parameters[f"layer{layer}.{one}"] for one in ("weight", "bias"))
            x = torch.tanh(x @ weight + bias)
        loss = torch.nn.functional.mse_loss(x, target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def state(self) -> dict[str, Any]:
        """What a checkpoint has."""
        return {name: self._torch.from_numpy(array) for name, array in self.arrays.items()}


def make_trainer(arena: Arena, shape: Shape) -> NumpyTrainer | TorchTrainer:
    """With PyTorch if it is installed."""
    return (TorchTrainer if HAS_TORCH else NumpyTrainer)(arena, shape)
