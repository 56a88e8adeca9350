#!/usr/bin/env python3
"""Writes tests/vectors/dtype.safetensors: rows of each quantised and 16-bit type beside what the gguf package makes of them.

    pip install gguf numpy          (written with gguf 0.19.0, numpy 2.4)
    python3 tests/parity/make_dtype_vectors.py

TYPE.raw is U8, TYPE.f32 the values. Every byte of quants is random; scales are random halves, of every size and sign, finite.
"""
import json
import pathlib
import struct

import numpy as np
from gguf import GGMLQuantizationType, quants

BLOCKS = 24
# bytes of a block, its f16 scales' places, and its elements
TYPES = {"Q8_0": (34, (0,), 32), "Q4_0": (18, (0,), 32), "Q4_1": (20, (0, 2), 32), "Q5_0": (22, (0,), 32), "Q5_1": (24, (0, 2), 32),
         "IQ4_NL": (18, (0,), 32), "Q2_K": (84, (80, 82), 256), "Q3_K": (110, (108,), 256), "Q4_K": (144, (0, 2), 256),
         "Q5_K": (176, (0, 2), 256), "Q6_K": (210, (208,), 256)}
K_BLOCKS = 6
rng = np.random.default_rng(20412)
OUT = pathlib.Path(__file__).resolve().parent.parent / "vectors" / "dtype.safetensors"


def finite_halves(n):
    bits = rng.integers(0, 0x10000, 64 * n + 64).astype(np.uint16)
    return bits[(bits & 0x7C00) != 0x7C00][:n]


def raw(name):
    if name not in TYPES:
        bits = rng.integers(0, 0x10000, 64 * BLOCKS).astype(np.uint16)
        exponent = 0x7C00 if name == "F16" else 0x7F80
        return bits[(bits & exponent) != exponent][:32 * BLOCKS].view(np.uint8)
    size, scales, elements = TYPES[name]
    n = BLOCKS if elements == 32 else K_BLOCKS
    blocks = rng.integers(0, 256, (n, size)).astype(np.uint8)
    halves = finite_halves(n * len(scales)).reshape(n, len(scales)).view(np.uint8)
    for i, at in enumerate(scales):
        blocks[:, at:at + 2] = halves[:, 2 * i:2 * i + 2]
    return blocks.reshape(-1)


tensors = {}
for name in ("F16", "BF16", *TYPES):
    data = raw(name)
    view = data.view(np.float16) if name == "F16" else data
    values = quants.dequantize(view, GGMLQuantizationType[name]).astype(np.float32).reshape(-1)
    assert len(values) >= 32 * BLOCKS and np.isfinite(values).all()
    tensors[name + ".f32"] = ("F32", values)
    tensors[name + ".raw"] = ("U8", data)

header, offset = {}, 0
for name, (dtype, array) in sorted(tensors.items(), key=lambda kv: (kv[1][0] != "F32", kv[0])):
    header[name] = {"dtype": dtype, "shape": [len(array)], "data_offsets": [offset, offset + array.nbytes]}
    offset += array.nbytes
text = json.dumps(header, separators=(",", ":")).encode()
text += b" " * (-len(text) % 8)
with OUT.open("wb") as f:
    f.write(struct.pack("<Q", len(text)) + text)
    for name in header:
        f.write(tensors[name][1].tobytes())
