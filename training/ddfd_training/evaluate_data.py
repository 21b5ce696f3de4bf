"""What an evaluation is run on: each data set as images with their truth, ready to compare."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ddfd_ros.core.errors import DatasetError, DdfdError
from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig
from ddfd_training.datasets.base import ReadSequence, RgbdDataset, RgbdSample
from ddfd_training.datasets.dfd_dslr import DfdDslr
from ddfd_training.datasets.registry import DATASETS, dataset_class, open_dataset, option_names
from ddfd_training.datasets.sample import eight_bit
from ddfd_training.defocus_cache import RenderSettings
from ddfd_training.evaluate_items import First, Item, Natural, Rendered
from ddfd_training.optics_options import Layering, RenderOptions
from ddfd_training.prepared import Prepared
from ddfd_training.sources import PINHOLE_F_NUMBER

DATA_SETS = tuple(name for name in DATASETS if name != "synthetic")
EXPOSURES = ("auto", "global", "none")


@dataclass(frozen=True)
class DataOptions:
    """Which images, and how they are prepared.

    Attributes:
        data: One of :data:`DATA_SETS`.
        root: Its folder (or file).
        split: One of the set's splits. A set without a ``test`` split is tested on ``val``, or on
            all there is.
        lens: Lens by which sharp images are blurred; not used for natural ones.
        kernel: Point-spread function of the renderer.
        preset: Way to render by name (``RENDER_PRESETS``), in place of ``kernel``; or empty.
        size: Height and width that sharp images are brought to before they are rendered, as the
            ``size`` of a recipe's source: ``lens`` is that of these images. Empty leaves them.
        cache: Folder where rendered images are kept.
        limit: Take only the first so many images; 0: all.
        aperture: Of the DSLR sets: ``N2_8`` or ``N8``.
        exposure: ``global`` brings the sharp truth of a natural pair to the defocused
            image's brightness (gain and offset) before PSNR and SSIM; ``none`` does not; ``auto``
            does where the pair has to be registered too, and leaves published aligned pairs alone.
        rgb_is: Of a folder or bag: what the colour images show, see their classes.
        options: Further options of the data set's class.
    """

    data: str
    root: str
    split: str = "test"
    lens: LensConfig = LENS_PRESETS["nyu-8m"]
    kernel: str = "disk"
    preset: str = ""
    size: tuple[int, ...] = ()
    cache: str = ".cache/defocus"
    limit: int = 0
    aperture: str = "N2_8"
    exposure: str = "auto"
    rgb_is: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rendering(self) -> RenderSettings:
        """How sharp images are photographed."""
        return RenderSettings(self.lens, self.kernel, preset=self.preset)


class EvaluationSet:
    """Items one after the other, and a description of how they came about.

    Attributes:
        dataset: What they are made of.
        description: For the report: data set, lens, clip, preparation.
        sensor_range_m: Errors up to this depth are reported separately, or ``None``.
        scale: Width of the images over that of the data set's own, which ``size`` changes.
    """

    def __init__(
        self,
        items: Sequence[Item],
        description: dict[str, Any],
        dataset: RgbdDataset,
        scale: float = 1.0,
    ) -> None:
        self._items = items
        self.scale = scale
        self.description = description
        self.dataset = dataset
        self.sensor_range_m = dataset.sensor_range_m

    def __len__(self) -> int:
        """Number of items."""
        return len(self._items)

    @property
    def rendered(self) -> bool:
        """Whether the simulated lens took the images."""
        return "lens" in self.description

    def image_width(self) -> int:
        """Width of the first image in pixels, known without preparing it."""
        return round(self.scale * self.dataset[0].depth_m.shape[1])

    def __iter__(self) -> Iterator[Item]:
        """The items, prepared when asked for."""
        return (self._items[index] for index in range(len(self._items)))


def open_evaluation_set(options: DataOptions, dataset: RgbdDataset | None = None) -> EvaluationSet:
    """Prepare the images that ``options`` name; rendering shows its own progress bar.

    Args:
        options: Which images, and how they are prepared.
        dataset: What ``open_test_data`` gave for them; ``None`` opens it.

    Raises:
        DatasetError: Unknown data set or options, a folder that is not as expected, or sharp
            images asked for of a set of photographs.
    """
    if options.exposure not in EXPOSURES:
        raise DatasetError(
            f"exposure: expected one of {', '.join(EXPOSURES)}, got {options.exposure!r}"
        )
    split = split_of(options)
    if dataset is None:
        dataset = open_test_data(options)
    description: dict[str, Any] = {"name": options.data, "root": Path(options.root).name}
    if split != "all":
        description["split"] = split
    if options.options:
        description["options"] = dict(options.options)
    if dataset.blur == "rendered":
        return _rendered(dataset, options, description)
    if options.lens.f_number >= PINHOLE_F_NUMBER:
        raise DatasetError(
            f"--input: expected auto with {options.data}, whose photographs are shown as they "
            "are, got sharp; leave --input out"
        )
    # At N 8 the input is its own companion.
    registered = dataset.registered or options.aperture == "N8"
    exposure = options.exposure
    if exposure == "auto":
        exposure = "none" if dataset.registered else "global"
    description |= {"blur": "natural", "exposure_match": exposure}
    if "aperture" in option_names(options.data):
        description["aperture"] = options.aperture
    if isinstance(dataset, DfdDslr):
        description["pair"] = dataset.pairing
    samples = EightBitInput(First(dataset, options.limit))
    items = Natural(samples, exposure, registered=registered, defocus_unit=dataset.defocus_unit)
    return EvaluationSet(items, description, dataset)


def open_test_data(options: DataOptions) -> RgbdDataset:
    """The data set that ``options`` name, of the split to test on.

    Raises:
        DatasetError: As for ``open_evaluation_set``.
    """
    return _open(options, split_of(options))


def told_lens(options: DataOptions, items: EvaluationSet, *, given: bool) -> LensConfig:
    """What a model that takes the lens is told of the images.

    Pictures tell second moments, so it is the lens whose disks spread as the renderer's
    point-spread function does; the lens of photographs is taken for such a one.

    Args:
        options: What the set was opened with.
        items: The set.
        given: Whether the user has said which lens it is.

    Raises:
        DdfdError: They are sharp (``--input sharp``), or photographs through a lens that nobody
            has named.
    """
    if options.lens.f_number >= PINHOLE_F_NUMBER:
        raise DdfdError(
            "--input: expected auto with a model that is told the lens, since none of its lenses "
            "leaves everything sharp, got sharp; leave --input out, or take a model for one lens"
        )
    if items.rendered:
        return options.lens.spread_as(options.rendering.options.spread_per_diameter)
    if not given:
        raise DdfdError(
            "--lens: expected the lens of these photographs, which the model has to be told, got "
            "none; give a preset, the .yaml of ddfd-calibrate, or four numbers"
        )
    return options.lens


def refuse_unused_lens(options: DataOptions) -> NoReturn:
    """Refuse a lens given for photographs that a model for one lens is shown.

    Raises:
        DdfdError: Always: it would be ignored.
    """
    raise DdfdError(
        "--lens: expected with sharp images, which it blurs, or with a model for any lens, which "
        f"is told it, got it with the photographs of {options.data} and a model for one lens; "
        "leave it out"
    )


def split_of(options: DataOptions) -> str:
    """The split to test on: the one asked for, or what the set has in place of ``test``.

    Raises:
        DatasetError: No such data set, or a folder of one's own lists only what was trained on.
    """
    splits: tuple[str, ...] = getattr(dataset_class(options.data), "splits", ("all",))
    if options.split in splits or options.split != "test":
        return options.split
    root = Path(options.root)
    if (root / "test.txt").is_file():  # a folder's own list
        return "test"
    if splits == ("all",) and (root / "train.txt").is_file():
        raise DatasetError(
            f"{root}: split: expected test.txt beside train.txt, got none, so that what was "
            "trained on would be tested on; write it, or give the split all"
        )
    return "val" if "val" in splits else splits[-1]


def _open(options: DataOptions, split: str) -> RgbdDataset:
    """The data set with those of the options that it knows."""
    known = option_names(options.data)
    given = {"aperture": options.aperture, "rgb_is": options.rgb_is}
    if options.data == "bag" and options.rgb_is == "auto":
        del given["rgb_is"]
    chosen = {key: value for key, value in given.items() if key in known}
    return open_dataset(options.data, options.root, split, **{**chosen, **options.options})


def _rendered(
    dataset: RgbdDataset, options: DataOptions, description: dict[str, Any]
) -> EvaluationSet:
    """Sharp images through the simulated lens."""
    samples = Prepared(First(dataset, options.limit), options.size)
    parts = (dataset.name, options.split, dataset.key[:8], samples.changes)
    tag = "-".join(part for part in parts if part)
    items = Rendered(samples, options.rendering, options.cache, tag, dataset.clip_m, fill=True)
    description |= {
        "blur": f"simulated, {_in_words(options.rendering.options)}, rounded to 8 bits",
        "lens": asdict(options.lens),
        "depth_clip_m": dataset.clip_m,
    }
    if options.preset:
        description["preset"] = options.preset
    if options.size:
        description["size"] = list(options.size)
    scale = options.size[1] / dataset[0].depth_m.shape[1] if options.size else 1.0
    return EvaluationSet(items, description, dataset, scale)


def _in_words(options: RenderOptions) -> str:
    """A way to render as far as it is not the usual one, kernel first."""
    words = [f"{options.kernel} kernel"]
    if options.kernel == "blend":
        words.append(f"{options.gaussian_share:g} of it Gaussian")
    if options.kernel != "disk":
        words.append(f"sigma {options.sigma_per_diameter:g} of the diameter")
    if options.sharp_below_px:
        words.append(f"sharp below {options.sharp_below_px:g} px")
    if options.largest_kernel_px:
        words.append(f"at most {options.largest_kernel_px} px wide")
    layering = options.layering
    if layering != Layering():
        unit = "m of depth" if layering.by == "depth" else "px of blur"
        words.append(f"{'soft ' if layering.soft else ''}layers of {layering.step:.3g} {unit}")
    if layering.from_nearest_m is not None:
        words.append(f"from {-layering.from_nearest_m:g} m before the nearest point")
    return ", ".join(words)


class EightBitInput(ReadSequence[RgbdSample]):
    """Samples as a runtime takes them: 8-bit images; the truth keeps what was finer, as fractions.

    16-bit photographs become uint8 inputs and float32 truths from 0 to 255.
    """

    def __init__(self, samples: Sequence[RgbdSample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._samples)

    def read(self, index: int) -> RgbdSample:
        """Sample ``index``."""
        sample = self._samples[index]
        image, sharp = sample.defocused_rgb, sample.sharp_rgb
        if image is not None and image.dtype == np.uint16:
            sample = replace(sample, defocused_rgb=eight_bit(image))
        if sharp is not None and sharp.dtype == np.uint16:
            sample = replace(sample, sharp_rgb=sharp.astype(np.float32) / np.float32(257))
        return sample


def mean_training_depth_m(options: DataOptions) -> float:
    """Mean of all known depths of the training split: what one predicts without looking.

    Raises:
        DatasetError: The data set has no training split, or no depth.
    """
    splits = getattr(dataset_class(options.data), "splits", ())
    if "train" not in splits:
        raise DatasetError(
            f"baseline: expected a data set with a training split, got {options.data}"
        )
    sharp = {"sharp": False} if "sharp" in option_names(options.data) else {}
    dataset = _open(replace(options, options={**options.options, **sharp}), "train")
    maps = (dataset[index].depth_m for index in range(len(dataset)))
    return mean_known_m(maps, dataset.clip_m or (0.0, np.inf), options.data)


def mean_known_m(maps: Iterable[np.ndarray], clip_m: tuple[float, float], where: str) -> float:
    """Mean of all known depths, clipped as errors are counted, in metres.

    Args:
        maps: Depth in metres, NaN where unknown.
        clip_m: Nearest and farthest.
        where: What the error calls their origin.

    Raises:
        DatasetError: None of them is known.
    """
    total, count = 0.0, 0
    for depth_m in maps:
        known_m = np.clip(depth_m[np.isfinite(depth_m)], *clip_m)
        total += float(known_m.sum(dtype=np.float64))
        count += known_m.size
    if not count:
        raise DatasetError(
            f"mean depth: expected known depths in {where}, got none; name data with depth"
        )
    return total / count
