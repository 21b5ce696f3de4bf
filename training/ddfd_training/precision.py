"""In which precision to train on the hardware that is there."""

from __future__ import annotations

import re
from pathlib import Path

import torch

_CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""x86-64's names and Arm's."""
_CPUINFO = Path("/proc/cpuinfo")


def chosen_precision(asked: str, accelerator: str = "auto") -> tuple[str, str]:
    """Lightning's name for the precision to train in, and what there is to say about it.

    Args:
        asked: ``auto``: ``bf16-mixed`` where the hardware computes in bfloat16, else ``32-true``.
            Everything else is taken as it is.
        accelerator: Lightning's ``auto``, ``cpu``, ``gpu``, ``cuda``, ...

    Returns:
        Precision, and a remark or an empty text.
    """
    on_gpu = accelerator in ("gpu", "cuda")
    on_gpu |= accelerator == "auto" and torch.cuda.is_available()
    has = _gpu_has_bfloat16() if on_gpu else accelerator in ("auto", "cpu") and cpu_has_bfloat16()
    if asked == "auto":
        if has:
            return "bf16-mixed", ""
        return "32-true", "precision: 32-true, since there is no hardware for bfloat16 here"
    if asked.startswith("bf16") and not has:
        return asked, (
            f"precision: {asked} without hardware for bfloat16 is computed by conversions, many "
            "times slower than 32-true; precision=auto takes what is fast here"
        )
    return asked, ""


def cpu_has_bfloat16() -> bool:
    """Whether this machine's processor multiplies bfloat16, as far as Linux tells."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    lines = re.findall(r"^(?:flags|Features)\s*:(.*)$", text, flags=re.MULTILINE)
    return bool(lines) and all(_CPU_FLAGS.intersection(line.split()) for line in lines)


def _gpu_has_bfloat16() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
