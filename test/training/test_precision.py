"""Which precision a training takes on which hardware."""

from __future__ import annotations

import pytest
import torch

from ddfd_training import precision
from ddfd_training.precision import chosen_precision, cpu_has_bfloat16

X86 = "processor\t: {0}\nflags\t\t: fpu avx2 {1}\n\n"
ARM = "processor\t: {0}\nFeatures\t: fp asimd {1}\n\n"


@pytest.mark.parametrize(
    ("text", "has"),
    [
        (X86.format(0, "avx512_bf16") + X86.format(1, "avx512_bf16"), True),
        (X86.format(0, "amx_bf16 amx_tile"), True),
        (X86.format(0, "avx512f avx512vl"), False),
        (X86.format(0, "avx512_bf16") + X86.format(1, "avx2"), False),  # not on every core
        (ARM.format(0, "bf16 i8mm"), True),
        (ARM.format(0, "asimddp"), False),
        ("processor : 0\n", False),
    ],
)
def test_linux_tells_what_the_processor_has(tmp_path, monkeypatch, text, has):
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    monkeypatch.setattr(precision, "_CPUINFO", file)
    assert cpu_has_bfloat16() is has


def test_a_processor_that_tells_nothing_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "_CPUINFO", tmp_path / "absent")
    assert cpu_has_bfloat16() is False


@pytest.mark.parametrize(
    ("asked", "accelerator", "cpu", "gpu", "taken", "said"),
    [
        ("auto", "cpu", True, None, "bf16-mixed", ""),
        ("auto", "cpu", False, None, "32-true", "no hardware for bfloat16"),
        ("auto", "cpu", False, True, "32-true", "no hardware for bfloat16"),
        ("auto", "auto", False, True, "bf16-mixed", ""),
        ("auto", "auto", True, False, "32-true", "no hardware for bfloat16"),  # an older GPU
        ("auto", "gpu", True, None, "32-true", "no hardware for bfloat16"),
        ("auto", "mps", True, None, "32-true", "no hardware for bfloat16"),
        ("bf16-mixed", "cpu", False, None, "bf16-mixed", "many times slower"),
        ("bf16-mixed", "cpu", True, None, "bf16-mixed", ""),
        ("32-true", "cpu", True, None, "32-true", ""),
        ("16-mixed", "gpu", False, True, "16-mixed", ""),
    ],
)
def test_bfloat16_is_taken_where_it_is_computed(
    monkeypatch, asked, accelerator, cpu, gpu, taken, said
):
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: cpu)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bool(gpu))
    name, remark = chosen_precision(asked, accelerator)
    assert name == taken
    assert said in remark
    assert bool(said) is bool(remark)
