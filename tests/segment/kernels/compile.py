"""Compiles the kernel for a GPU that need not be there. Called by ``test_finalisation.py``."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from xpath.segment.kernels.triton_kernel import TILE, finalise_kernel

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"

for dtype, bands in (("fp32", 0), ("bf16", 0), ("bf16", 2)):
    signature = {
        "logits": f"*{dtype}",
        "results": ("*u8", "*i32", "*fp32", "*i32"),
        "low_size": ("i32", "i32"),
        "corner": "i32",
        "size": ("i32", "i32"),
        "cells": ("i32", "i32") if bands else ("constexpr", "constexpr"),
        "TILE": "constexpr",
    }
    constants = {(6,): (*TILE, bands)}
    if not bands:  # Triton makes a constant of a 1, the default
        constants |= {(5, 0): 1, (5, 1): 1}
    source = ASTSource(finalise_kernel, signature, constexprs=constants)
    compiled = triton.compile(
        source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False}
    )
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(compiled.asm["cubin"])
        report = subprocess.run(
            [CUOBJDUMP, "-res-usage", str(binary)], check=True, capture_output=True, text=True
        ).stdout
    (registers,), (stack,) = re.findall(r"REG:(\d+)", report), re.findall(r"STACK:(\d+)", report)
    sys.stdout.write(f"{dtype} {bands} {registers} {stack}\n")
