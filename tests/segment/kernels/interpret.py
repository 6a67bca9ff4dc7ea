"""Runs the kernel in Triton's interpreter. Called by ``test_finalisation.py``."""

import sys

import torch

from tests.segment.kernels.test_finalisation import CASES, agree, by_hand, smooth
from xpath.segment.kernels.finalisation import finalise_reference
from xpath.segment.kernels.triton_kernel import finalise_triton

for case in CASES:
    count, h, w, size, corner, cells = case
    for dtype in (torch.float32, torch.bfloat16):
        logits = smooth(count, h, w).to(dtype)
        logits[:, 1:2] = -3  # an empty mask among others
        agree(
            finalise_triton(logits, size, corner=corner, cells=cells),
            finalise_reference(logits, size, corner=corner, cells=cells),
            by_hand(logits, size, corner),
            size[1],
        )
        sys.stdout.write(f"{str(dtype).removeprefix('torch.')} {case}\n")
