"""Whether this machine computes in bfloat16, and gains by it."""

from __future__ import annotations

import os
import subprocess
import sys

import torch

# A virtual machine may declare instructions that it then refuses: the process is killed where it comes to one. So it is
# tried in another, a convolution and a product of matrices, which take different ways; and oneDNN's log says whether it
# had the unit that makes bfloat16 fast (AMX). Its vector instructions alone were 1.5 times as slow as float32.
_TRIAL = """
import torch
with torch.inference_mode():
    torch.nn.functional.conv2d(torch.ones(2, 64, 28, 28).bfloat16(), torch.ones(64, 64, 3, 3).bfloat16())
    torch.nn.functional.linear(torch.ones(64, 512).bfloat16(), torch.ones(256, 512).bfloat16())
"""
_TRIAL_SECONDS = 120


def works(device: str) -> bool:
    """Whether it can be used at all. device: "cpu", "cuda" or "mps"."""
    return bool(torch.cuda.is_bf16_supported()) if device == "cuda" else device == "cpu" and _tried() is not None


def is_fast(device: str) -> bool:
    """Whether it is faster than float32 there."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device == "cpu" and _declared() and "amx" in (_tried() or "")


def _declared() -> bool:
    """Whether the processor says that it has that unit; what has not need not be tried."""
    check = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(check and check())


def _tried() -> str | None:
    """oneDNN's log of the trial; None where it did not come to its end."""
    environment = {**os.environ, "ONEDNN_VERBOSE": "1", "OMP_NUM_THREADS": "1"}
    try:
        trial = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _TRIAL],
            capture_output=True,
            text=True,
            env=environment,
            timeout=_TRIAL_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return trial.stdout if trial.returncode == 0 else None
