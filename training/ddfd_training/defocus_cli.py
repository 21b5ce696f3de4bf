"""``ddfd-defocus``: what an RGB-D image or folder would look like through a lens.

One image: ddfd-defocus photo.png --depth depth.png --lens nyu-8m --out blurred.png
A folder with rgb/ and depth/: ddfd-defocus recording --lens nyu-8m --out blurred
writes rgb/ (defocused), sharp/, depth/ and lens.json, which ddfd-evaluate --data folder reads.
If the folder has sharp/ too, its rgb/ is defocused already, and sharp/ is what is blurred.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from ddfd_ros.core.errors import DatasetError, DdfdError
from ddfd_ros.core.lens_calibration import LensCalibration
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.datasets.base import RgbdSample, read_rgb
from ddfd_training.datasets.rgbd_folder import (
    FRAME_FOLDERS,
    LENS_FILE,
    REGISTRATION_FILE,
    RgbdFolder,
    depth_steps,
    frame_size_of,
    read_depth_m,
    require_own_frames,
    too_far_note,
)
from ddfd_training.defocus_cache import RenderSettings, render_sample
from ddfd_training.depth_fill import fill_depth
from ddfd_training.lens_argument import HELP as LENS_HELP
from ddfd_training.lens_argument import lens_at, parse_count, parse_lens
from ddfd_training.optics_options import RENDER_PRESETS
from ddfd_training.prepare_report import write_json
from ddfd_training.psf import RENDER_KERNELS
from ddfd_training.sensor import Sensor


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ddfd-defocus",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", help="an all-in-focus image, or a folder with rgb/ and depth/")
    parser.add_argument("--depth", help="the image's depth: 16-bit PNG, .npy or float .tif (m)")
    parser.add_argument(
        "--depth-unit",
        type=float,
        default=1e-3,
        metavar="METRES",
        help="metres per step of a 16-bit depth image",
    )
    parser.add_argument("--lens", type=parse_lens, required=True, help=LENS_HELP)
    parser.add_argument(
        "--preset",
        choices=tuple(RENDER_PRESETS),
        default="",
        help="render as a paper does; instead of the next three",
    )
    parser.add_argument(
        "--kernel", choices=RENDER_KERNELS, help=f"default: {RenderSettings.kernel}"
    )
    parser.add_argument(
        "--sigma-ratio",
        type=float,
        metavar="K",
        help="sigma of a Gaussian over blur diameter, 0.25 to 0.5 in published codes; default: "
        f"{RenderSettings.sigma_per_diameter:g}",
    )
    parser.add_argument(
        "--gaussian-share",
        type=float,
        metavar="S",
        help="for --kernel blend: 0 is a disk, 1 a Gaussian; default: "
        f"{RenderSettings.gaussian_share:g}",
    )
    parser.add_argument(
        "--read-noise", type=float, default=0.0, metavar="LEVELS", help="noise, of 255 grey levels"
    )
    parser.add_argument(
        "--shot-noise",
        type=float,
        default=0.0,
        metavar="LEVELS",
        help="photon noise at full white",
    )
    parser.add_argument("--jpeg", type=int, default=0, metavar="QUALITY", help="1 to 100; 0: none")
    parser.add_argument("--out", required=True, help="image to write, or folder")
    parser.add_argument(
        "--limit", type=parse_count, default=0, help="only the first so many of a folder"
    )
    return parser


def _write(path: Path, image: np.ndarray) -> None:
    """Write an image, colour given as RGB.

    Raises:
        DatasetError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    try:
        written = cv2.imwrite(str(path), pixels)
    except cv2.error:  # raised for a suffix that no encoder knows
        written = False
    if not written:
        raise DatasetError(f"expected to write an image to {path}; give a name like blurred.png")


def _blur(sample: RgbdSample, settings: RenderSettings) -> tuple[np.ndarray, np.ndarray]:
    """The sample through the lens, and its depth with the gaps filled."""
    filled_m = fill_depth(sample.depth_m, sample.name)
    whole = RgbdSample(name=sample.name, depth_m=filled_m, sharp_rgb=sample.sharp_rgb)
    return render_sample(whole, settings), filled_m


def _one(arguments: argparse.Namespace, settings: RenderSettings, console: Console) -> None:
    """A single image."""
    if not Path(arguments.input).is_file():
        raise DatasetError(
            f"{arguments.input}: expected an image or a folder, got nothing there; check the path"
        )
    if arguments.depth is None:
        raise DatasetError(
            f"{arguments.input}: expected --depth FILE with the image's depth, got none; a folder "
            "needs none (it holds rgb/ and depth/)"
        )
    target = Path(arguments.out)
    target = target / f"{Path(arguments.input).stem}.png" if target.is_dir() else target
    if target.resolve() in [Path(one).resolve() for one in (arguments.input, arguments.depth)]:
        raise DatasetError(f"--out: expected another file than the input, got {target}")
    rgb = read_rgb(Path(arguments.input))
    depth_m = read_depth_m(Path(arguments.depth), arguments.depth_unit)
    if depth_m.shape != rgb.shape[:2]:
        raise DatasetError(
            f"expected image and depth of one size, got {rgb.shape[:2]} and {depth_m.shape}; "
            "register the depth to the image first"
        )
    sample = RgbdSample(name=Path(arguments.input).stem, depth_m=depth_m, sharp_rgb=rgb)
    image, filled_m = _blur(sample, settings)
    _write(target, image)
    blur_px = settings.lens.coc_px(np.array([filled_m.min(), filled_m.max()]))
    console.print(
        f"depth {filled_m.min():.2f} to {filled_m.max():.2f} m: blur of {blur_px[0]:.1f} px in "
        f"front and {blur_px[1]:.1f} px behind; written to {target}",
        highlight=False,
    )


def _folder(arguments: argparse.Namespace, settings: RenderSettings, console: Console) -> None:
    """All frames of an RGB-D folder."""
    folder = RgbdFolder(arguments.input, depth_unit_m=arguments.depth_unit)
    target = Path(arguments.out)
    if target.resolve() == folder.root.resolve():
        raise DatasetError(f"--out: expected another folder than the input, got {target}")
    count = min(arguments.limit or len(folder), len(folder))
    require_own_frames(target, FRAME_FOLDERS, folder.frames[:count])
    target.mkdir(parents=True, exist_ok=True)
    write_json(target / LENS_FILE, asdict(settings) | {"render": asdict(settings.options)})
    # Each pair is one picture; of a folder that was cut, the whole frames' size is kept.
    size = list(folder.frame_size())
    write_json(target / REGISTRATION_FILE, {"registered": True, "frame_px": size})
    too_far = 0
    for index in track(range(count), description="blurring", console=console):
        sample = folder[index]
        image, _ = _blur(sample, settings)
        name = f"{sample.name}.png"
        _write(target / "rgb" / name, image)
        if sample.sharp_rgb is not None:
            _write(target / "sharp" / name, sample.sharp_rgb)
        steps, beyond = depth_steps(sample.depth_m)
        too_far += beyond
        _write(target / "depth" / name, steps)
    console.print(f"{count} frames written to {target}", highlight=False)
    if too_far:
        console.print(too_far_note(too_far), highlight=False)
    if folder.skipped:
        console.print(f"left out, without image or depth: {len(folder.skipped)}", highlight=False)


def _lens(arguments: argparse.Namespace) -> LensConfig:
    """The lens at the pictures' size, which a calibration has to be told."""
    given: LensConfig | LensCalibration = arguments.lens
    if isinstance(given, LensConfig):
        return given
    path = Path(arguments.input)
    if path.is_dir():
        height, width = RgbdFolder(path, depth_unit_m=arguments.depth_unit).frame_size()
    else:
        height, width = frame_size_of(path)
    return lens_at(given, width, height)


def _settings(arguments: argparse.Namespace) -> RenderSettings:
    """The settings that the arguments ask for.

    Raises:
        DatasetError: A value out of its range.
    """
    named = {
        "kernel": arguments.kernel,
        "sigma_per_diameter": arguments.sigma_ratio,
        "gaussian_share": arguments.gaussian_share,
    }
    try:
        settings = RenderSettings(
            _lens(arguments),
            **{name: value for name, value in named.items() if value is not None},
            preset=arguments.preset,
            sensor=Sensor(arguments.read_noise, arguments.shot_noise, arguments.jpeg),
        )
        settings.options  # noqa: B018 - its checks
    except ValueError as error:
        raise DatasetError(str(error)) from error
    return settings


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what would be ignored.

    Raises:
        DatasetError: It names the argument.
    """
    folder, kernel = Path(arguments.input).is_dir(), arguments.kernel or RenderSettings.kernel
    preset, ratio, share = arguments.preset, arguments.sigma_ratio, arguments.gaussian_share
    its_own = f"--preset {preset}, which has its own"
    ignored = (
        ("--depth", arguments.depth, folder, "a folder, whose depth/ is taken"),
        ("--limit", arguments.limit or None, not folder, "one image"),
        ("--kernel", arguments.kernel, preset, its_own),
        ("--sigma-ratio", ratio, preset, its_own),
        ("--sigma-ratio", ratio, kernel == "disk", "--kernel disk, which has no Gaussian"),
        ("--gaussian-share", share, preset, its_own),
        ("--gaussian-share", share, kernel != "blend", f"--kernel {kernel}, which is no blend"),
    )
    for option, value, unused, beside in ignored:
        if unused and value is not None:
            raise DatasetError(f"{option}: expected none with {beside}, got {value}; leave it out")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    work = _folder if Path(arguments.input).is_dir() else _one
    try:
        _check(arguments)
        work(arguments, _settings(arguments), Console())
    except (DdfdError, OSError) as error:
        print(f"ddfd-defocus: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
