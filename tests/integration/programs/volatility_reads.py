# SPDX-License-Identifier: GPL-2.0-or-later
"""What layers of volatility3 read of an image."""

from __future__ import annotations

import json
import sys

from volatility3.framework import contexts, exceptions
from volatility3.framework.layers import lime, physical

path, kind, reads = sys.argv[1:]
context = contexts.Context()
context.config["file.location"] = "file://" + path
layer = physical.FileLayer(context, "file", "file")
context.add_layer(layer)
if kind == "lime":
    layer = lime.LimeStacker.stack(context, "file")
print(type(layer).__name__, layer.minimum_address, layer.maximum_address)
for address, length in json.loads(reads):
    try:
        print(layer.read(address, length).hex())
        assert layer.is_valid(address, length)
    except exceptions.InvalidAddressException:
        assert not layer.is_valid(address, length)
        print("invalid")
