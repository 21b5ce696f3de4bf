"""The measured part of the two pages: figures, comparisons and verdicts from result files."""

from __future__ import annotations

import json

import pytest

from ddfd_training.deblurring_report import BEGIN, END, main


def write(folder, arm, seed, **parts):
    result = {
        "arm": arm, "seed": seed, "machine": {"cpu": "a processor"}, "steps": 10, "crops": 40,
        "crop_px": 96, "trained_parameters": 1234, "tests": {"t": parts},
    }  # fmt: skip
    name = f"{arm}-seed{seed}" if seed else arm
    (folder / f"{name}.json").write_text(json.dumps(result))


def sharp(psnr, by_image=()):
    rows = [{"frame": str(i), "psnr": value} for i, value in enumerate(by_image)]
    return {"by_image": rows,
            "all_in_focus": {"output": {"psnr": psnr, "ssim": 0.9, "mae": 0.01},
                             "gain": {"psnr": psnr - 30}}}  # fmt: skip


def blur(mae_px, rmse):
    return {
        "defocus": {"mean_over_images": {"mae_px": mae_px, "mse_px2": 1.0}},
        "depth": {"mean_over_images": {"rmse": rmse, "delta1": 0.5}},
    }


@pytest.fixture(name="pages")
def _pages(tmp_path):
    results, docs = tmp_path / "results", tmp_path / "docs"
    results.mkdir()
    docs.mkdir()
    for page in ("self-supervised.md", "deblurring.md"):
        (docs / page).write_text(f"before\n{BEGIN}\nformer text\n{END}\nafter\n")
    write(results, "mean-depth", 0, **blur(3.0, 1.0))
    return results, docs


def run(pages):
    results, docs = pages
    assert main(["--results", str(results), "--docs", str(docs)]) == 0
    texts = [(docs / page).read_text() for page in ("self-supervised.md", "deblurring.md")]
    for text in texts:
        assert text.startswith(f"before\n{BEGIN}\n")
        assert text.endswith(f"{END}\nafter\n")
        assert "former text" not in text
    return texts


def test_verdicts_follow_the_figures(pages):
    results, _ = pages
    write(results, "map-selfsup", 1, **blur(0.9, 0.69))
    write(results, "zhuo-sim", 0, **blur(1.5, 1.1))
    for seed, (gru, none, conv) in enumerate([(33.0, 32.0, 33.2), (33.1, 32.5, 33.0)], 1):
        write(results, "gru", seed, **sharp(gru))
        write(results, "gru-no-depth", seed, **sharp(none))
        write(results, "conv", seed, **sharp(conv))
    maps, deblurring = run(pages)
    assert "The map's error is below Zhuo and Sim's: 0.90 px against 1.50 px (one training" in maps
    assert "31% less rms error" in maps
    assert "less: reached (one training, no interval)." in maps
    assert "| `2hded-selfsup`, small | two photographs a view | 0.90 | 1.00 | 0.690 |" in maps
    assert "depth over none, the same network: +1.00, +0.60 dB; holds (seeds, no" in deblurring
    assert "GRU over convolution: -0.20, +0.10 dB; undecided (seeds, no interval)." in deblurring
    assert "| and GRU, told our depth | 1,234 | 33.05 ± 0.05 | 3.05 ± 0.05 |" in deblurring
    assert "attention over" not in deblurring  # not run: no verdict


def test_what_was_not_reached_is_said(pages):
    results, _ = pages
    write(results, "map-selfsup", 1, **blur(1.6, 0.75))
    write(results, "zhuo-sim", 0, **blur(1.5, 1.1))
    write(results, "gru", 1, **sharp(32.0))
    write(results, "gru-no-depth", 1, **sharp(32.5))
    maps, deblurring = run(pages)
    assert "**not below** Zhuo and Sim's" in maps
    assert "**not reached**" in maps
    only = "undecided (one training a side, no interval)."
    assert f"depth over none, the same network: -0.50 dB; {only}" in deblurring


def test_one_training_a_side_is_judged_by_its_images(pages):
    results, _ = pages
    write(results, "gru", 1, **sharp(32.0, [31.0, 33.0] * 8))
    write(results, "gru-no-depth", 1, **sharp(32.5, [31.4, 33.6] * 8))
    write(results, "conv", 1, **sharp(31.9, [30.0, 33.8] * 8))
    _, deblurring = run(pages)
    assert "-0.50 dB, 95 % interval over images -0.5" in deblurring
    assert "**does not hold** (one training a side and images)." in deblurring
    assert "GRU over convolution: +0.10 dB, 95 % interval over images -0." in deblurring
    assert "undecided (one training a side and images)." in deblurring


def test_pages_without_results_or_markers(pages, capsys):
    maps, _ = run(pages)
    assert "Not run yet." in maps
    results, docs = pages
    (docs / "deblurring.md").write_text("no markers")
    assert main(["--results", str(results), "--docs", str(docs)]) == 2
    assert "expected the markers" in capsys.readouterr().err
