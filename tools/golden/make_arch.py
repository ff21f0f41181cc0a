#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/arch.txt with llama.cpp as the oracle: see make_golden.py for how to get it.

    oracle/bin/python tools/golden/make_arch.py build/tests/engine_arch_test [tests/golden]

The test itself writes the models, small ones with random weights in F32, and the tokens of the prompt.
"""
import pathlib
import subprocess
import sys
import tempfile

from make_golden import Oracle

POSITIONS = (0, 40, 89)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else "tests/golden")
    with tempfile.TemporaryDirectory() as folder, open(out / "arch.txt", "w", encoding="ascii") as f:
        text = subprocess.run([sys.argv[1], "--write", folder], check=True, capture_output=True, text=True).stdout
        tokens = [int(line) for line in text.split()]
        for name in ("llama", "qwen2", "qwen3", "gemma3"):
            oracle = Oracle(f"{folder}/{name}.gguf", context=256)
            for position in POSITIONS:
                oracle.clear()
                logits = oracle.eval(tokens[:position + 1])
                f.write(f"logits {name} {position} " + " ".join(f"{v:.6g}" for v in logits) + "\n")


main()
