"""Deviations corrected by pictures that were not trained on: the line, the network, the recipe."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_ros.model import build_network
from ddfd_ros.model.blur_space import evidence_of, lens_vector, metres_from_evidence
from ddfd_ros.model.checkpoint import load_checkpoint
from ddfd_training import cli
from ddfd_training.any_lens import ManyLensSet
from ddfd_training.config import DataConfig, NetworkConfig, SourceConfig, TrainConfig
from ddfd_training.image_set import hold_out
from ddfd_training.metrics_sigma import interval_coverage
from ddfd_training.sigma_fit import fit_sigma, quantile_line
from ddfd_training.trainer import DefocusData

SMALL = {"heads": "depth", "widths": [8, 8, 16, 16, 16], "lens_input": True}


def test_a_share_of_the_values_lies_below_the_line():
    random = np.random.default_rng(1)
    x = random.uniform(-1, 1, 4000)
    rows = np.stack([np.ones_like(x), x], axis=1)
    values = 2.0 + 3.0 * x + random.exponential(1.0, 4000)
    offset, slope = quantile_line(rows, values, 0.68)
    # P(E < e) = 1 - exp(-e)
    assert offset == pytest.approx(2.0 - math.log(0.32), abs=0.08)
    assert slope == pytest.approx(3.0, abs=0.1)
    assert np.mean(values <= rows @ [offset, slope]) == pytest.approx(0.68, abs=0.002)


@pytest.fixture
def network():
    torch.manual_seed(3)
    return build_network("ddfd-lite", lens=LENS_PRESETS["nyu-4m"], **SMALL).eval()


def pictures(network, wrong_by, count=40):
    """Random pictures, their truth off by Laplace noise of ``wrong_by`` times the deviation."""
    random = np.random.default_rng(5)
    found = []
    for number in range(count):
        image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(number))
        lens = torch.tensor([float(random.uniform(5, 25)), float(random.uniform(0.2, 1.2))])
        with torch.no_grad():
            answer = network(image[None], lens=lens[None])
        sigma_m = wrong_by(lens) * answer["sigma_m"][0].numpy()
        noise = random.laplace(size=sigma_m.shape) / math.sqrt(2)
        truth_m = answer["depth_m"][0].numpy() + sigma_m * noise
        found.append(
            {"image": image, "lens": lens, "depth_m": torch.from_numpy(truth_m.astype(np.float32))}
        )
    return found


def covered(network, several, probability):
    errors, sigmas = [], []
    for picture in several:
        with torch.no_grad():
            answer = network(picture["image"][None], lens=picture["lens"][None])
        truth_m = picture["depth_m"].numpy().ravel()
        good = (truth_m > 0.5) & (truth_m < 10)
        errors.append(np.abs(answer["depth_m"].numpy().ravel() - truth_m)[good])
        sigmas.append(answer["sigma_m"].numpy().ravel()[good])
    return interval_coverage(np.concatenate(errors), np.concatenate(sigmas), probability)


def test_deviations_that_are_wrong_by_the_lens_are_put_right(network):
    with torch.no_grad():  # surer of itself, so that the truth stays within the range of depths
        network.depth_decoder.out.bias[4:8] -= 1.5
        network.depth_decoder.out.bias[12:16] -= 1.5

    def wrong_by(lens):
        return 0.4 * float(lens[0] / 14.0) ** 0.7

    several = pictures(network, wrong_by)
    before = covered(network, several, 0.68)
    fit = fit_sigma(network, several)
    assert before > 0.85
    assert fit.before == pytest.approx(before, abs=0.03)
    for part in (several[::2], several[1::2]):
        assert covered(network, part, 0.68) == pytest.approx(0.68, abs=0.03)
        assert covered(network, part, 0.95) == pytest.approx(0.95, abs=0.02)
    offset, by_strength, *_ = network.sigma_correction.tolist()
    assert math.exp(offset) == pytest.approx(0.4, rel=0.15)
    assert by_strength == pytest.approx(0.7, abs=0.1)
    # Fitted again, it is the same: the correction is not corrected.
    assert fit_sigma(network, several).correction == pytest.approx(fit.correction)
    # In training the deviations are what the network learns.
    picture = several[0]
    assert _in_training(network, picture) == pytest.approx(
        _in_training(_uncorrected(network), picture)
    )


def _uncorrected(network):
    network.sigma_correction.zero_()
    return network


def _in_training(network, picture):
    raw = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    evidence = evidence_of(raw, picture["lens"][None])
    out = metres_from_evidence(evidence, (0.5, 10.0), True, network.sigma_correction)
    return out["sigma_m"].ravel().tolist()


def test_what_cannot_be_fitted_is_refused(network):
    with pytest.raises(ValueError, match="expected held-out pictures with known depth, got none"):
        fit_sigma(network, [])
    fixed = build_network("ddfd-lite", **{**SMALL, "lens_input": False})
    with pytest.raises(ValueError, match="expected a network with lens_input"):
        fit_sigma(fixed, [])


def test_held_out_scenes_are_not_trained_on_through_another_lens():
    images = ManyLensSet(
        defocused_rgb=np.zeros((30, 4, 4, 3), np.uint8),
        sharp_rgb=np.zeros((10, 4, 4, 3), np.uint8),
        depth_m=np.zeros((10, 4, 4), np.float32),
        sharp_known=np.ones((10, 4, 4), bool),
        frames=tuple(range(30)),
        lenses=np.ones((30, 2), np.float32),
        draws=3,
    )
    kept, taken = hold_out(images, 4)
    assert (len(taken.frames), len(kept.frames)) == (12, 18)
    assert not {kept.scene_of(f) for f in kept.frames} & {taken.scene_of(f) for f in taken.frames}
    assert sorted(kept.frames + taken.frames) == list(range(30))


@pytest.fixture
def fitted(tmp_path):
    """A recipe of two steps, to be fitted at the end; its pictures do not name their lens."""
    rooms = SourceConfig("synthetic", "", count=4, size=(48, 64))
    return TrainConfig(
        name="fitted",
        network=NetworkConfig(options=SMALL),
        data=DataConfig((rooms,), str(tmp_path / "cache"), 32, batch_size=2, held_out=1),
        steps=2,
        save_every=2,
        validate_every=2,
        precision="32-true",
        threads=1,
        fit_sigma=True,
    )


def test_pictures_that_name_no_lens_are_fitted_with_the_recipes(fitted, tmp_path):
    path = cli.train(fitted, tmp_path, {"accelerator": "cpu", "devices": 1})
    assert load_checkpoint(path)[0].sigma_correction.abs().max() > 0
    data = DefocusData(fitted)
    data.setup()
    told = data.held_out()[0]["lens"]
    assert told.tolist() == pytest.approx(list(lens_vector(fitted.lens)))


def test_a_training_is_kept_where_its_fit_fails(fitted, tmp_path, monkeypatch):
    def fails(*_):
        raise ValueError("no fit")

    monkeypatch.setattr(cli, "fit_sigma", fails)
    with pytest.raises(ValueError, match="no fit"):
        cli.train(fitted, tmp_path, {"accelerator": "cpu", "devices": 1})
    contract = load_checkpoint(tmp_path / "fitted/fitted.pt")[1]
    assert contract.training["steps"] == 2
    # The same command again only fits.
    monkeypatch.setattr(cli, "fit_sigma", fit_sigma)
    path = cli.train(fitted, tmp_path, {"accelerator": "cpu", "devices": 1})
    assert load_checkpoint(path)[0].sigma_correction.abs().max() > 0
