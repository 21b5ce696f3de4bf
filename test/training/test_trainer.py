"""The trainer learns, and a training that was killed ends as if it had not been."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.model.checkpoint import load_checkpoint
from ddfd_training.augment import augment
from ddfd_training.cli import main, train, train_stages
from ddfd_training.config import (
    DataConfig,
    NetworkConfig,
    OptimizerConfig,
    SourceConfig,
    TrainConfig,
)
from ddfd_training.crops import CropDataset, ImageSet, hold_out, stack_pairs
from ddfd_training.datasets.base import RgbdSample
from ddfd_training.lens_draws import LensRanges
from ddfd_training.metrics import depth_metrics
from ddfd_training.optimizers import build_optimizer, rate_share
from ddfd_training.sources import open_source
from ddfd_training.trainer import DefocusData, DepthFromDefocus

CPU = {"accelerator": "cpu", "devices": 1}
SMALL = {"widths": [8, 8, 8, 8, 8], "depths": [1, 1, 1, 1, 1], "sharp_width": 8, "sharp_blocks": 1}


@pytest.fixture(scope="module")
def nyuv2_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four frames of noise over slanted depth in NYUv2's layout."""
    root = tmp_path_factory.mktemp("nyuv2")
    random = np.random.default_rng(0)
    for name in ("rgb", "depth"):
        (root / name).mkdir()
    for frame in (0, 2, 4, 6):  # numbers that do not follow each other: four scenes
        coarse = random.integers(0, 255, (120, 160, 3), dtype=np.uint8)
        rgb = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_LINEAR)
        levels = np.linspace(30 + 10 * frame, 120, 640)[None].repeat(480, 0).astype(np.uint8)
        cv2.imwrite(str(root / "rgb" / f"{frame:04d}.jpg"), rgb)
        cv2.imwrite(str(root / "depth" / f"{frame:04d}.png"), levels)
    (root / "train.txt").write_text("0000\n0002\n0004\n0006\n", encoding="ascii")
    return root


@pytest.fixture
def config(nyuv2_like: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A recipe of 12 steps, saved every third; the rendered images are shared by the tests."""
    data = DataConfig(
        sources=(SourceConfig(root=str(nyuv2_like)),),
        cache=str(nyuv2_like / "cache"),
        crop_px=64,
        batch_size=2,
        held_out=1,
    )
    return TrainConfig(
        name="tiny",
        network=NetworkConfig(options=SMALL),
        data=data,
        optimizer=OptimizerConfig(warmup_steps=3),
        steps=12,
        save_every=3,
        validate_every=6,
        precision="32-true",
        threads=1,
    )


def _weights(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path)[0].state_dict()


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_resumed_training_ends_with_the_same_weights(
    config: TrainConfig, tmp_path: Path, dropout: float
) -> None:
    """Stopped after 6 of 12 steps and started again: bit for bit the uninterrupted result."""
    config = dataclasses.replace(
        config, network=NetworkConfig(options=SMALL | {"dropout": dropout})
    )
    whole = train(config, tmp_path / "whole", dict(CPU))
    assert train(config, tmp_path / "parts", dict(CPU), steps_now=6) is None
    resumed = train(config, tmp_path / "parts", dict(CPU))
    assert whole is not None
    assert resumed is not None
    expected, got = _weights(whole), _weights(resumed)
    different = [name for name in expected if not torch.equal(expected[name], got[name])]
    assert different == []
    contract = load_checkpoint(resumed)[1]
    assert contract.training["steps"] == 12
    assert contract.lens == config.lens


class _Killed(BaseException):
    """Stands for the end of the process: nothing in the trainer may catch it."""


@pytest.mark.parametrize("crop", [13, 18], ids=["between checkpoints", "right after one"])
def test_killed_training_loses_nothing(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crop: int
) -> None:
    """Killed at any crop, and started again: bit for bit the uninterrupted result."""
    whole = train(config, tmp_path / "whole", dict(CPU))
    cut = CropDataset.__getitem__

    def killed(self: CropDataset, index: int) -> dict[str, torch.Tensor]:
        if self._start + index == crop:
            raise _Killed
        return cut(self, index)

    monkeypatch.setattr(CropDataset, "__getitem__", killed)
    with pytest.raises(_Killed):
        train(config, tmp_path / "parts", dict(CPU))
    monkeypatch.setattr(CropDataset, "__getitem__", cut)
    resumed = train(config, tmp_path / "parts", dict(CPU))
    assert whole is not None
    assert resumed is not None
    expected, got = _weights(whole), _weights(resumed)
    assert [name for name in expected if not torch.equal(expected[name], got[name])] == []
    assert load_checkpoint(resumed)[1].training["steps"] == 12


def test_killed_while_it_writes_a_checkpoint_it_keeps_the_one_before(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the folder for temporary files is another file system, so that a move copies."""
    assert train(config, tmp_path, dict(CPU), steps_now=6) is None
    kept = (tmp_path / "tiny" / "last.ckpt").read_bytes()

    def half(*arguments: object, **others: object) -> None:
        del others
        for name in arguments:  # a move's source and target, or torch's content and file
            if isinstance(name, str | Path) and ".ckpt" in Path(name).name:
                Path(name).write_bytes(kept[:1000])
                raise _Killed

    monkeypatch.setattr(shutil, "move", half)
    save = torch.save

    def half_saved(content: object, file: object) -> None:
        half(file)
        save(content, file)

    monkeypatch.setattr(torch, "save", half_saved)
    with pytest.raises(_Killed):
        train(config, tmp_path, dict(CPU))
    assert (tmp_path / "tiny" / "last.ckpt").read_bytes() == kept


@pytest.mark.parametrize(
    ("save_every", "held_out"),
    [(3, 1), (50, 1), (50, 0)],
    ids=["at a checkpoint", "at the validation", "at the end"],
)
def test_weights_that_are_no_numbers_are_not_saved(
    config: TrainConfig, tmp_path: Path, save_every: int, held_out: int
) -> None:
    """A training that has diverged says so, and leaves the last good checkpoint as it was."""
    data = dataclasses.replace(config.data, held_out=held_out)
    config = dataclasses.replace(config, data=data, save_every=save_every)
    kept = tmp_path / "tiny" / "last.ckpt"
    if save_every == 3:
        assert train(config, tmp_path, dict(CPU), steps_now=3) is None
        before = kept.read_bytes()
    batch_norm = torch.nn.BatchNorm2d.forward

    def lost(self: torch.nn.BatchNorm2d, features: torch.Tensor) -> torch.Tensor:
        return batch_norm(self, features) * float("nan")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.BatchNorm2d, "forward", lost)
        with pytest.raises(ValueError, match=r"NaN or infinite ones in \d+ of \d+ tensors"):
            train(config, tmp_path, dict(CPU))
    assert not (tmp_path / "tiny" / "tiny.pt").exists()
    if save_every == 3:
        assert kept.read_bytes() == before
        assert train(config, tmp_path, dict(CPU)) is not None
    else:
        assert not kept.exists()


def test_loss_falls(config: TrainConfig, tmp_path: Path) -> None:
    """Eighty steps on three frames lower the loss by a fifth."""
    longer = dataclasses.replace(config, steps=80, save_every=10, validate_every=40)
    train(longer, tmp_path, dict(CPU))
    rows = (tmp_path / "tiny/csv/version_0/metrics.csv").read_text(encoding="utf-8").splitlines()
    column = rows[0].split(",").index("train/l1_depth")
    losses = [float(row.split(",")[column]) for row in rows[1:] if row.split(",")[column]]
    assert len(losses) == 8
    assert np.mean(losses[-3:]) < 0.8 * losses[0]


def test_starts_from_other_weights(config: TrainConfig, tmp_path: Path) -> None:
    """``init`` copies weights; with no learning rate they stay what they were."""
    first = train(config, tmp_path, dict(CPU))
    still = OptimizerConfig(learning_rate=0.0, weight_decay=0.0, warmup_steps=1)
    second = dataclasses.replace(config, name="again", init=str(first), optimizer=still)
    after = train(second, tmp_path, dict(CPU))
    assert first is not None
    assert after is not None
    parameters = dict(load_checkpoint(after)[0].named_parameters())
    for name, value in load_checkpoint(first)[0].named_parameters():
        torch.testing.assert_close(parameters[name], value)


def test_a_fit_that_cannot_be_made_is_refused_before_the_training(
    config: TrainConfig, tmp_path: Path
) -> None:
    told = NetworkConfig(options={**SMALL, "lens_input": True})
    for changes in (
        {"network": config.network},
        {"network": told, "data": dataclasses.replace(config.data, held_out=0)},
    ):
        with pytest.raises(ValueError, match=r"fit_sigma: expected network\.options\.lens_input"):
            train(dataclasses.replace(config, fit_sigma=True, **changes), tmp_path, dict(CPU))
    assert not list(tmp_path.iterdir())


def test_command_line_reports_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong dataset folder is one line and exit code 2."""
    monkeypatch.delenv("DDFD_DATA", raising=False)
    recipe = tmp_path / "r.yaml"
    recipe.write_text("data: {sources: [{root: /nonexistent}]}", encoding="utf-8")
    code = main(["--config", str(recipe), "--out", str(tmp_path), "--accelerator", "cpu"])
    assert code == 2
    assert "expected a folder /nonexistent" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--devices", "foo"], "Lightning: .*devices"),
        (["--steps-now", "-1"], "--steps-now: expected 0 or more"),
        (["loss.options.foo=1"], "options of loss 'ddfd': expected only .*, got foo"),
        (["data.cache={file}"], "File exists"),
    ],
)
def test_what_nobody_can_train_with_is_one_line(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], more, message
) -> None:
    """No traceback of Lightning's, of the loss or of the file system."""
    file = tmp_path / "file"
    file.touch()
    recipe = tmp_path / "r.yaml"
    root = config.data.sources[0].root
    recipe.write_text(f"data: {{sources: [{{root: {root}}}], held_out: 1}}", encoding="utf-8")
    arguments = ["--config", str(recipe), "--out", str(tmp_path / "runs"), "--accelerator", "cpu"]
    assert main([*arguments, *(word.format(file=file) for word in more)]) == 2
    assert re.search(message, capsys.readouterr().err)


def _images(count: int = 3) -> ImageSet:
    """Images whose pixels tell frame, row and column."""
    frame, row, column = np.mgrid[0:count, 0:70, 0:80]
    rgb = np.stack([frame, row, column], axis=-1).astype(np.uint8)
    known = np.ones(row.shape, dtype=bool)
    return ImageSet(rgb, rgb, (row + 1).astype(np.float32), known, tuple(range(count)))


def test_crops_cut_image_depth_and_sharp_alike() -> None:
    """The same window and mirror for all; every part of the image is reached."""
    crops = CropDataset([_images()], DataConfig(crop_px=64), seed=1, start=0, length=200)
    tops, lefts, flips = set(), set(), set()
    for i in range(len(crops)):
        crop = crops[i]
        pixels = (crop["image"] * 255).round()
        torch.testing.assert_close(crop["image"], crop["sharp_rgb"])
        torch.testing.assert_close(pixels[1] + 1, crop["depth_m"][0])
        tops.add(int(pixels[1, 0, 0]))
        flips.add(bool(pixels[2, 0, 0] > pixels[2, 0, 1]))
        lefts.add(int(pixels[2].min()))
    assert tops == set(range(7))
    assert lefts == set(range(17))
    assert flips == {True, False}


def test_crop_depends_on_seed_and_number_alone() -> None:
    """Crop 7 is crop 7, wherever the epoch began."""
    config = DataConfig(crop_px=32)
    a = CropDataset([_images()], config, seed=1, start=0, length=10)[7]
    b = CropDataset([_images()], config, seed=1, start=5, length=5)[2]
    c = CropDataset([_images()], config, seed=2, start=0, length=10)[7]
    torch.testing.assert_close(a["image"], b["image"])
    assert not torch.equal(a["image"], c["image"])


def test_near_and_far_things_are_cut_as_often_as_others() -> None:
    """Of twenty images one is near and one far, and yet each shows a sixth of the crops."""
    depths = np.full(40, 3.0)
    depths[[4, 25]], depths[[11, 33]] = 0.6, 9.0
    images = _images(40)
    images = dataclasses.replace(
        images, depth_m=np.broadcast_to(depths[:, None, None], images.depth_m.shape).astype("f4")
    )
    shares = {}
    for candidates in (1, 40):
        config = DataConfig(crop_px=32, near_and_far=candidates)
        crops = CropDataset([images], config, 1, 0, 300, depth_range_m=(0.5, 10.0))
        found = np.array([float(crops[i]["depth_m"].mean()) for i in range(300)])
        shares[candidates] = (np.mean(found < 1), np.mean(found > 8))
        assert len({crops[i]["image"].sum().item() for i in range(20)}) > 10  # windows differ
    assert max(shares[1]) < 0.1
    assert min(shares[40]) > 0.15


def test_unknown_depth_is_never_the_nearest() -> None:
    images = _images(2)
    depth_m = np.stack([np.full((70, 80), np.nan), np.full((70, 80), 0.6)]).astype("f4")
    config = DataConfig(crop_px=32, near_and_far=12)
    crops = CropDataset([dataclasses.replace(images, depth_m=depth_m)], config, 1, 0, 40)
    assert sum(bool(crops[i]["depth_m"].isfinite().all()) for i in range(40)) >= 39


def test_noise_is_added_to_the_input_alone() -> None:
    """Sensor noise changes the image, not the sharp target, and stays in bytes."""
    config = DataConfig(crop_px=64, noise_std=8.0)
    crop = CropDataset([_images()], config, seed=1, start=0, length=4)[3]
    difference = (crop["image"] - crop["sharp_rgb"]) * 255
    assert 0.2 < float(difference.std()) < 8.5
    torch.testing.assert_close(difference, difference.round(), atol=1e-3, rtol=0)


def test_hold_out_parts_the_frames() -> None:
    """Nothing is lost and nothing is in both."""
    kept, taken = hold_out(_images(10), 3)
    assert len(taken.frames) == 3
    assert sorted(kept.frames + taken.frames) == list(range(10))


def test_hold_out_takes_whole_scenes() -> None:
    """Two views of a room go together; so many pictures as asked for, or a few more."""
    rooms = dataclasses.replace(_images(10), scenes=tuple(f"room {i // 2}" for i in range(10)))
    kept, taken = hold_out(rooms, 3)
    assert taken.frames == (0, 1, 8, 9)
    assert kept.frames == (2, 3, 4, 5, 6, 7)


def test_hold_out_of_long_scenes_takes_some_of_their_pictures() -> None:
    """The other pictures of such a scene are not trained on, either."""
    rooms = dataclasses.replace(_images(60), scenes=tuple(f"room {i // 20}" for i in range(60)))
    kept, taken = hold_out(rooms, 5)
    assert taken.frames == (0, 5, 10, 14, 19)
    assert kept.frames == tuple(range(20, 60))


def _sources(config: TrainConfig, *sources: SourceConfig, held_out: int = 1) -> DefocusData:
    data = dataclasses.replace(config.data, sources=sources, held_out=held_out)
    return DefocusData(dataclasses.replace(config, data=data))


def test_a_held_out_scene_is_in_no_other_source(config: TrainConfig) -> None:
    """The same rooms at half the size, in part, or by another path are the same rooms."""
    (source,) = config.data.sources
    root = Path(source.root)
    again = {"size": (240, 320)}, {"limit": 2}, {"root": f"{root}/../{root.name}"}
    data = _sources(config, source, *(dataclasses.replace(source, **each) for each in again))
    data.setup()
    sets = data.train_dataloader().dataset._sets
    assert len(data.held_out()) == 1
    assert [len(images.frames) for images in sets] == [3, 3, 1, 3]
    unseen = float(np.nanmean(data.held_out()[0]["depth_m"].numpy()))
    for images in sets:
        shown = [float(images.item(frame)["depth_m"].mean()) for frame in images.frames]
        assert min(abs(depth_m - unseen) for depth_m in shown) > 0.1


def test_photographs_that_the_lens_was_not_calibrated_for_are_not_trained_on(
    config: TrainConfig, tmp_path: Path
) -> None:
    """The same ones with a lens of their own are, by a network that is told it."""
    for kind in ("rgb", "sharp"):
        (tmp_path / kind).mkdir()
        cv2.imwrite(str(tmp_path / kind / "a.png"), np.full((60, 80, 3), 90, np.uint8))
    lens = {"lens": dataclasses.asdict(config.lens)}
    source = SourceConfig("folder", str(tmp_path), "all", options=lens)
    calibrated = dataclasses.replace(config, lens_px=(160, 120))
    with pytest.raises(DatasetError, match="calibrated for, 160x120, got 80x60"):
        _sources(calibrated, source, held_out=0).setup()
    told = NetworkConfig(options={**SMALL, "lens_input": True})
    _sources(dataclasses.replace(calibrated, network=told), source, held_out=0).setup()


def test_photographs_are_brought_to_the_calibrated_size_in_both_directions(
    config: TrainConfig, tmp_path: Path
) -> None:
    for kind in ("rgb", "sharp"):
        (tmp_path / kind).mkdir()
        cv2.imwrite(str(tmp_path / kind / "a.png"), np.full((120, 160, 3), 90, np.uint8))
    source = SourceConfig("folder", str(tmp_path), "all", size=(60, 80))
    calibrated = dataclasses.replace(config, lens_px=(80, 60))
    _sources(calibrated, source, held_out=0).setup()
    flat = dataclasses.replace(source, size=(50, 80))
    with pytest.raises(DatasetError, match=r"calibrated for, 80x60, got 80x50; .*\[60, 80\]"):
        _sources(calibrated, flat, held_out=0).setup()


def test_to_hold_everything_out_is_refused(config: TrainConfig) -> None:
    with pytest.raises(DatasetError, match=r"held_out: expected scenes of nyuv2 left .*got 4"):
        _sources(config, *config.data.sources, held_out=4).setup()


def test_synthetic_rooms_are_held_out_with_both_their_views(tmp_path: Path) -> None:
    rooms = SourceConfig("synthetic", "", count=6, size=(43, 56))
    config = TrainConfig(data=DataConfig((rooms,), str(tmp_path), crop_px=32))
    data = _sources(config, rooms, held_out=1)
    data.setup()
    assert len(data.held_out()) == 2
    assert data.train_dataloader().dataset._sets[0].frames == (2, 3, 4, 5)


def test_an_image_without_depth_leaves_the_validation_known(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: dict[str, float] = {}
    monkeypatch.setattr(DepthFromDefocus, "_world", 1)
    module = DepthFromDefocus(config).eval()
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: value}))
    image = torch.rand(1, 3, 64, 64)
    batch = {
        "image": image,
        "sharp_rgb": torch.rand(1, 3, 64, 64),
        "depth_m": torch.full((1, 1, 64, 64), float("nan")),
        "sharp_known": torch.ones(1, 1, 64, 64),
    }
    with torch.no_grad():
        module.validation_step(batch, 0)
    assert set(logged) == {"val/psnr", "val/psnr_gain"}
    assert np.isfinite(list(logged.values())).all()


def test_validation_is_of_the_network_that_is_exported(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In full precision, also in a training that rounds to bfloat16."""
    config = dataclasses.replace(config, precision="bf16-mixed", steps=2, validate_every=2)
    seen = []

    def kept(pred: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
        seen.append(pred.clone())
        return depth_metrics(pred, target)

    monkeypatch.setattr("ddfd_training.trainer.depth_metrics", kept)
    path = train(config, tmp_path, dict(CPU))
    assert path is not None
    data = DefocusData(config)
    data.setup()
    network = load_checkpoint(path)[0].eval()
    with torch.no_grad():
        expected = network(data.held_out()[0]["image"][None])["depth_m"]
    torch.testing.assert_close(seen[-1], expected, rtol=1e-4, atol=1e-4)


def test_crop_larger_than_the_image_is_refused() -> None:
    """The error gives both sizes."""
    with pytest.raises(DatasetError, match=r"at most .*70.*got 128"):
        CropDataset([_images()], DataConfig(crop_px=128), seed=1, start=0, length=1)


def test_learning_rate_rises_and_falls() -> None:
    """Linear warm-up to 1, then down to the final share."""
    wanted = OptimizerConfig(warmup_steps=10, final_share=0.01)
    shares = [rate_share(step, 100, wanted) for step in range(101)]
    assert shares[0] == pytest.approx(0.1)
    assert max(shares) == pytest.approx(1.0)
    assert shares.index(max(shares)) in (9, 10)
    assert all(a >= b for a, b in zip(shares[10:], shares[11:], strict=False))
    assert shares[-1] == pytest.approx(0.01)


def test_natural_pairs_are_laid_over_each_other() -> None:
    """A companion shifted by (3, 2) px and dimmed comes back onto its photograph."""
    random = np.random.default_rng(5)
    coarse = random.integers(0, 255, (30, 40, 3), dtype=np.uint8)
    wide = cv2.resize(coarse, (340, 260), interpolation=cv2.INTER_CUBIC)
    image = np.ascontiguousarray(wide[10:250, 10:330])
    shifted = np.ascontiguousarray(wide[12:252, 13:333])
    sample = RgbdSample(
        name="pair",
        depth_m=np.full((240, 320), 2.0, dtype=np.float32),
        sharp_rgb=(shifted * 0.8).astype(np.uint8),
        defocused_rgb=image,
    )
    lonely = dataclasses.replace(sample, sharp_rgb=None)
    images = stack_pairs([sample, lonely], weight=2.0)
    known = images.sharp_known[0]
    assert known.mean() > 0.9
    error = np.abs(images.sharp_rgb[0].astype(float) - image)[known]
    assert np.median(error) < 3
    assert not images.sharp_known[1].any()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"schedule": "constant"}, [1, 1, 1, 1]),
        ({"schedule": "steps", "milestones": (0.5, 0.75), "factor": 0.5}, [1, 1, 0.5, 0.25]),
        ({"schedule": "linear", "milestones": (0.5,), "final_share": 0.1}, [1, 1, 1, 0.55]),
    ],
)
def test_schedules_of_the_papers(settings: dict, expected: list[float]) -> None:
    """Rates at 0, 25, 50 and 75 % of the training."""
    wanted = OptimizerConfig(warmup_steps=0, **settings)
    assert [rate_share(step, 100, wanted) for step in (0, 25, 50, 75)] == pytest.approx(expected)


@pytest.mark.parametrize(("name", "first_step"), [("adam", 0.1), ("adamw", 0.1), ("sgd", 0.2)])
def test_optimisers_take_their_step(name: str, first_step: float) -> None:
    """From 1 with gradient 2: Adam moves by its rate, SGD by rate times gradient."""
    weight = torch.nn.Parameter(torch.ones(()))
    wanted = OptimizerConfig(name=name, learning_rate=0.1, weight_decay=0.0, warmup_steps=0)
    built = build_optimizer([weight], wanted, 100)
    weight.grad = torch.tensor(2.0)
    built["optimizer"].step()
    assert float(weight.detach()) == pytest.approx(1 - first_step, abs=1e-5)


def test_weight_decay_is_coupled_in_adam_and_not_in_adamw() -> None:
    """Without a gradient Adam's L2 term becomes a step of the full rate, AdamW's shrinks by it."""
    ends = {}
    for name in ("adam", "adamw"):
        weight = torch.nn.Parameter(torch.ones(()))
        wanted = OptimizerConfig(name=name, learning_rate=0.1, weight_decay=0.5, warmup_steps=0)
        weight.grad = torch.zeros(())
        built = build_optimizer([weight], wanted, 100)  # the schedule refers to it
        built["optimizer"].step()
        ends[name] = float(weight.detach())
    assert ends == pytest.approx({"adam": 0.9, "adamw": 0.95}, abs=1e-5)


def test_wrong_optimisers_are_refused() -> None:
    weight = [torch.nn.Parameter(torch.ones(()))]
    with pytest.raises(ValueError, match=r"optimizer\.name: expected one of adamw"):
        build_optimizer(weight, OptimizerConfig(name="lion"), 10)
    with pytest.raises(ValueError, match=r"optimizer\.milestones: .*\(0\.7, 0\.5\)"):
        build_optimizer(weight, OptimizerConfig(milestones=(0.7, 0.5)), 10)


def test_stages_follow_each_other(config: TrainConfig, tmp_path: Path) -> None:
    """The second stage starts from the first one's weights; what is done is not done again."""
    still = OptimizerConfig(learning_rate=0.0, weight_decay=0.0, warmup_steps=1)
    first = dataclasses.replace(config, name="tiny-first", steps=3)
    second = dataclasses.replace(config, steps=3, init="@tiny-first", optimizer=still)
    path = train_stages([first, second], tmp_path, dict(CPU))
    assert path == tmp_path / "tiny/tiny.pt"
    before = tmp_path / "tiny-first/tiny-first.pt"
    parameters = dict(load_checkpoint(path)[0].named_parameters())
    for name, value in load_checkpoint(before)[0].named_parameters():
        torch.testing.assert_close(parameters[name], value)
    changed = before.stat().st_mtime_ns
    train_stages([first, second], tmp_path, dict(CPU))
    assert before.stat().st_mtime_ns == changed


def test_sharp_input_is_the_sharp_image(nyuv2_like: Path, config: TrainConfig) -> None:
    """``input: sharp`` shows the sharp image; a size halves the images and their depth."""
    source = SourceConfig(root=str(nyuv2_like), input="sharp", size=(213, 280), limit=2)
    images = open_source(source, config.lens, config.data.cache)
    assert images.frames == (0, 1)
    item = images.item(1)
    assert item["image"].shape == (213, 280, 3)
    assert item["depth_m"].shape == (213, 280)
    np.testing.assert_array_equal(item["image"], item["sharp_rgb"])
    rendered = open_source(
        dataclasses.replace(source, input="auto"), config.lens.scaled(0.5), config.data.cache
    )
    assert np.abs(rendered.item(1)["image"].astype(int) - item["image"]).mean() > 0.3
    with pytest.raises(DatasetError, match="input: expected one of auto, sharp, rendered"):
        open_source(dataclasses.replace(source, input="blurry"), config.lens, "unused")


def test_blurred_pictures_are_not_scaled(config: TrainConfig) -> None:
    """Scaled by 1.5 and taken for 1.5 times nearer, their blur would be that of no such lens."""
    data = dataclasses.replace(config.data, augment="eigen")
    blurred = dataclasses.replace(config, data=data)
    for source in (data.sources[0], SourceConfig("dfd_dslr", "", aperture="N2_8")):
        with pytest.raises(DatasetError, match="augment: eigen scales pictures, and their blur"):
            _sources(blurred, source, held_out=0).setup()
    sharp = dataclasses.replace(data.sources[0], input="sharp")
    _sources(blurred, sharp, held_out=0).setup()


def test_a_way_to_blur_what_nothing_blurs_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    """Lenses for photographs, and for ``input: sharp``, which were blurred all the same."""
    for kind in ("rgb", "sharp"):
        (tmp_path / kind).mkdir()
        cv2.imwrite(str(tmp_path / kind / "a.png"), np.full((60, 80, 3), 90, np.uint8))
    natural = SourceConfig("folder", str(tmp_path), "all")
    drawn = LensRanges(draws=2)
    for source, message in (
        (dataclasses.replace(natural, preset="d3net"), "sources.preset: expected with sharp"),
        (dataclasses.replace(natural, lenses=drawn), "sources.lenses: expected with sharp"),
        (dataclasses.replace(config.data.sources[0], lenses=drawn, input="sharp"), "2 draws"),
    ):
        with pytest.raises(DatasetError, match=message):
            _sources(config, source, held_out=0).setup()


def test_augmentation_keeps_16_bits() -> None:
    """Half bright stays about half bright; 8 bits would cut it off at 255."""
    grey = np.full((32, 32, 3), 30000, np.uint16)
    item = {
        "image": grey,
        "sharp_rgb": grey,
        "depth_m": np.ones((32, 32), np.float32),
        "sharp_known": np.ones((32, 32), bool),
    }
    changed = augment(item, np.random.default_rng(0))["image"]
    assert changed.dtype == np.uint16
    assert 0.75 * 30000 < changed[16, 16].min() <= changed[16, 16].max() < 1.25 * 30000


def test_augmentation_keeps_image_and_depth_aligned() -> None:
    """A ramp is image and depth at once: they still agree, but for colour and scale."""
    ramp = np.broadcast_to(np.linspace(40, 160, 65), (65, 65))
    rgb = np.repeat(ramp.astype(np.uint8)[..., None], 3, axis=2)
    item = {
        "image": rgb,
        "sharp_rgb": rgb,
        "depth_m": rgb[..., 0].astype(np.float32),
        "sharp_known": np.ones((65, 65), dtype=bool),
    }
    ratios = []
    for seed in range(20):
        changed = augment(item, np.random.default_rng(seed))
        np.testing.assert_array_equal(changed["image"], changed["sharp_rgb"])
        assert {key: value.dtype for key, value in changed.items()} == {
            key: value.dtype for key, value in item.items()
        }
        inside = np.isfinite(changed["depth_m"]) & changed["sharp_known"]
        assert inside.mean() > 0.85
        ratio = changed["image"][inside].mean(axis=1) / changed["depth_m"][inside]
        assert ratio.std() < 0.03 * ratio.mean()  # one colour gain times one scale per crop
        ratios.append(float(ratio.mean()))
    assert 0.8 <= min(ratios) <= 1.0
    assert 1.2 <= max(ratios) <= 1.8
