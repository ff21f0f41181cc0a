#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/quants/TYPE.bin: rows of every element type, dequantised by the package gguf.

    python3 -m venv oracle && oracle/bin/pip install gguf numpy
    oracle/bin/python tools/golden/make_quants.py [tests/golden/quants]

Weights are random bytes, so that every bit of a block counts, with scales that keep values near 1.
tests/golden/README.md describes the files.
"""
import pathlib
import sys

import gguf
import numpy as np

ROWS, COLS = 3, 512
# Where the half-precision scales of a block are, and how large they may be.
SCALES = {"F32": [], "F16": [], "BF16": [], "Q4_0": [(0, .2)], "Q4_1": [(0, .2), (2, 1.)], "Q5_0": [(0, .1)],
          "Q5_1": [(0, .1), (2, 1.)], "Q8_0": [(0, .02)], "Q4_K": [(0, .004), (2, .03)], "Q5_K": [(0, .002), (2, .03)],
          "Q6_K": [(208, .0006)]}


def raw_rows(rng, name):
    kind = gguf.GGMLQuantizationType[name]
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    if not SCALES[name]:
        values = rng.normal(0, 1, (ROWS, COLS)).astype(np.float32)
        if name == "F32":
            return kind, values.view(np.uint8)
        if name == "F16":
            return kind, values.astype(np.float16).view(np.uint8)
        return kind, gguf.quants.quantize(values, kind).view(np.uint8).reshape(ROWS, -1)
    blocks = rng.integers(0, 256, (ROWS, COLS // elements, size), dtype=np.uint8)
    for at, limit in SCALES[name]:
        halves = rng.uniform(-limit, limit, blocks.shape[:2]).astype(np.float16)
        blocks[:, :, at:at + 2] = halves[..., None].view(np.uint8)
    return kind, blocks.reshape(ROWS, -1)


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/quants")
    rng = np.random.default_rng(20)
    for name in SCALES:
        kind, raw = raw_rows(rng, name)
        values = gguf.quants.dequantize(raw, kind).astype(np.float32).reshape(ROWS, COLS)
        x = rng.normal(0, 1, COLS).astype(np.float32)
        dots = values.astype(np.float64) @ x.astype(np.float64)
        head = np.array([int(kind), ROWS, COLS], dtype="<u4")
        body = b"".join(np.ascontiguousarray(a).tobytes() for a in (head, raw, values, x, dots))
        (out / f"{name.lower()}.bin").write_bytes(body)


if __name__ == "__main__":
    main()
