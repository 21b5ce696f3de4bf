"""``ddfd-calibrate``: measure what your lens does to distance, with a printed sheet.

1. Print the target:       ddfd-calibrate --print target.pdf    (at 100 %, on flat cardboard)
2. Photograph it, focus and aperture fixed, from about ten distances between near and far,
   slightly tilted; or record a bag while a helper holds it still at each.
3. Measure:                ddfd-calibrate pictures/ --out lens/
writes lens/lens.yaml (for the node's lens_calibration and for a recipe's lens:) and lens/lens.png.

An RGB-D recording will do instead of a target, where it has sharp companions: a folder with rgb/,
depth/ and sharp/ (docs/datasets.md).

With companions at a small aperture in sharp/ (same names), add --sharp-ratio with
the quotient of both f-numbers, for either folder: f/2.8 beside f/16 is 0.175.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from ddfd_ros.core.errors import DdfdError
from ddfd_training.calibration.errors import CalibrationError
from ddfd_training.calibration.inputs import (
    MOST_FRAMES,
    BagPictures,
    evenly,
    folder_camera,
    folder_pictures,
    is_bag,
    is_rgbd,
    read_camera,
    read_folder,
)
from ddfd_training.calibration.measure import Measurement, measure
from ddfd_training.calibration.report import plot, show, write_record, write_yaml
from ddfd_training.calibration.rgbd import calibrate_rgbd, plot_rgbd
from ddfd_training.calibration.solve import Nominal, Result, solve
from ddfd_training.calibration.target import PAPERS_MM, Target, print_target
from ddfd_training.datasets.rgbd_folder import RgbdFolder
from ddfd_training.given_options import given_options

_LONGEST_MM = 2000.0
_OF_THE_TARGET = (
    "circles", "paper", "step", "diameter", "scale_error", "camera", "topic", "sharp", "shape",
)  # fmt: skip
_OF_THE_PRINT = ("input", "print", "paper", "circles", "step", "diameter")
"""What says something where a target is printed and nothing measured."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ddfd-calibrate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", nargs="?", type=Path, help="folder of pictures, or a ROS 2 bag")
    parser.add_argument("--out", type=Path, default=Path("lens"), help="folder of the results")
    sheet = parser.add_argument_group("the target")
    sheet.add_argument("--print", type=Path, metavar="FILE", help="write the target: .pdf or .png")
    sheet.add_argument(
        "--paper",
        choices=tuple(PAPERS_MM),
        default="a4",
        help="size of the sheet, the same when printing and measuring; default: a4",
    )
    sheet.add_argument(
        "--circles", default="3x9", metavar="NxROWS", help="circles in a row x rows; odd rows"
    )
    sheet.add_argument(
        "--step",
        type=float,
        default=0.0,
        metavar="MM",
        help="half the distance of neighbours in a row, as measured on the print; default: as "
        "printed at 100 %%",
    )
    sheet.add_argument("--diameter", type=float, default=0.0, metavar="MM", help="of the circles")
    sheet.add_argument(
        "--scale-error",
        type=float,
        default=0.002,
        metavar="SHARE",
        help="how far the print's size may be off, as a standard deviation; widens the intervals",
    )
    camera = parser.add_argument_group("the camera")
    camera.add_argument(
        "--camera",
        type=Path,
        help="intrinsics: YAML of a camera_info, or fx fy cx cy in a .txt; default: what lies "
        "beside the pictures, camera_info in the bag, or estimated from the pictures",
    )
    camera.add_argument(
        "--topic", default="", help="images in the bag; default: the most frequent"
    )
    camera.add_argument(
        "--frames",
        type=int,
        default=MOST_FRAMES,
        help="of a bag or an RGB-D folder to look at, at most",
    )
    camera.add_argument("--sharp", type=Path, help="companions at a small aperture, same names")
    camera.add_argument(
        "--sharp-ratio",
        type=float,
        default=0.0,
        metavar="R",
        help="f-number of the pictures over that of the companions",
    )
    camera.add_argument(
        "--response",
        choices=("srgb", "linear"),
        default="srgb",
        help="tone curve of the pictures; blur is measured in light",
    )
    lens = parser.add_argument_group("what is written on the lens (tells A where blur cannot)")
    lens.add_argument("--focal", type=float, default=0.0, metavar="MM")
    lens.add_argument("--f-number", type=float, default=0.0, metavar="N")
    lens.add_argument(
        "--pitch", type=float, default=0.0, metavar="UM", help="pixel pitch of these pictures"
    )
    lens.add_argument(
        "--sigma-ratio",
        type=float,
        default=0.0,
        metavar="K",
        help="sigma over diameter of the blur, where its shape does not tell; real lenses have "
        "about 0.37",
    )
    lens.add_argument("--shape", choices=("auto", "disk", "gaussian", "blend"), default="auto")
    return parser


def _target(arguments: argparse.Namespace) -> Target:
    try:
        per_row, rows = (int(part) for part in arguments.circles.lower().split("x"))
    except ValueError:
        raise CalibrationError(
            f"--circles: expected two numbers like 3x9, got {arguments.circles!r}"
        ) from None
    return Target.on_paper(arguments.paper, per_row, rows, arguments.step, arguments.diameter)


def _check(arguments: argparse.Namespace) -> None:
    """Refuse numbers that mean nothing, before anything is measured."""
    if not 0 <= arguments.sharp_ratio < 1:
        raise CalibrationError(
            f"--sharp-ratio: expected 0 to below 1, got {arguments.sharp_ratio}; it is the "
            "f-number of the wide aperture over that of the small one"
        )
    if arguments.frames < 1:
        raise CalibrationError(f"--frames: expected at least 1, got {arguments.frames}")
    for name in (
        "focal", "f_number", "pitch", "sigma_ratio", "scale_error", "step", "diameter",
    ):  # fmt: skip
        value = getattr(arguments, name)
        most = _LONGEST_MM if name == "focal" else math.inf
        if not 0 <= value <= most or math.isinf(value):
            wanted = f"mm from 0 to {most:g}" if name == "focal" else "a number from 0"
            raise CalibrationError(
                f"--{name.replace('_', '-')}: expected {wanted} (0: not known), got {value:g}"
            )


def _check_print(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse options that a printed target would leave without effect."""
    others = [name for name in vars(arguments) if name not in _OF_THE_PRINT]
    if given := given_options(arguments, others, parser):
        raise CalibrationError(
            f"--print: expected options of the target alone, got also {', '.join(given)}; give "
            "those with the pictures"
        )


def _check_pictures(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse options that these pictures of the target would leave without effect."""
    path: Path = arguments.input
    bag = is_bag(path)
    if given := given_options(
        arguments, ("sharp", "sharp_ratio") if bag else ("topic", "frames"), parser
    ):
        kind = "bag, which has no companions" if bag else "folder of pictures, all of which count"
        raise CalibrationError(
            f"{path}: expected no {', '.join(given)} with a {kind}; leave that out"
        )
    companions = arguments.sharp or path / "sharp"
    if arguments.sharp_ratio and path.is_dir() and not companions.is_dir():
        raise CalibrationError(
            f"--sharp-ratio: expected companions at a small aperture, got no folder {companions}; "
            "put them there, name it with --sharp, or leave the ratio out"
        )


def _check_rgbd(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse options that an RGB-D folder would leave without effect."""
    if given := given_options(arguments, _OF_THE_TARGET, parser):
        raise CalibrationError(
            f"{arguments.input}: expected no {', '.join(given)} with an RGB-D folder, which has "
            "depth and companions instead of a target, and tells the shape itself; leave them out"
        )


def _the_same_again(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> str:
    """What the measurement must be told of the sheet, in words; empty: nothing."""
    names = ("paper", "circles", "step", "diameter")
    given = given_options(arguments, names, parser)
    again = " ".join(f"{name} {getattr(arguments, name[2:])}" for name in given)
    return f", and measure with the same {again}" if again else ""


def _measure(arguments: argparse.Namespace, target: Target, console: Console) -> Measurement:
    path: Path = arguments.input
    bag = BagPictures(path, arguments.topic, arguments.frames) if is_bag(path) else None
    if bag is not None:
        pictures, count, camera = iter(bag), len(bag), bag.camera()
    else:
        count = len(folder_pictures(path))
        pictures, camera = read_folder(path, arguments.sharp), folder_camera(path)
    if arguments.camera is not None:
        camera = read_camera(arguments.camera)
    shown = track(pictures, description="looking for the target", total=count, console=console)
    return measure(
        shown,
        target,
        camera,
        response=arguments.response,
        sharp_share=arguments.sharp_ratio,
        say=console.print,
    )


def _calibrate(arguments: argparse.Namespace, target: Target, console: Console) -> Result:
    console.print(
        f"target: {target.per_row}x{target.rows} circles, {2 * target.step_mm:g} mm apart in a "
        "row; if the print differs, A and the focus are as wrong as it is: give --paper or --step",
        highlight=False,
    )
    measurement = _measure(arguments, target, console)
    with console.status("fitting the lens"):
        return solve(
            measurement,
            nominal=Nominal(arguments.focal / 1e3, arguments.f_number, arguments.pitch / 1e6),
            scale_error=arguments.scale_error,
            sigma_per_diameter=arguments.sigma_ratio,
            shape=arguments.shape,
        )


def _from_rgbd(arguments: argparse.Namespace, console: Console) -> None:
    """Calibrate with an RGB-D folder, and write the results."""
    dataset = RgbdFolder(arguments.input)
    nominal = Nominal(arguments.focal / 1e3, arguments.f_number, arguments.pitch / 1e6)
    chosen = evenly(len(dataset), arguments.frames)
    frames = (dataset[i] for i in chosen)
    result = calibrate_rgbd(
        track(frames, description="matching windows", total=len(chosen), console=console),
        response=arguments.response,
        nominal=nominal,
        sigma_per_diameter=arguments.sigma_ratio,
        focal_px=dataset.intrinsics[0] if dataset.intrinsics else 0.0,
        sharp_share=arguments.sharp_ratio,
        frame_size=dataset.frame_size(),
    )
    for name, (value, low, high) in (
        ("k A (px of sigma per dioptre)", result.k_a),
        ("focus (dioptre)", result.focus_dioptre),
    ):
        console.print(f"{name}: {value:.4g}, 95 % from {low:.4g} to {high:.4g}", highlight=False)
    record = result.calibration
    console.print(
        f"A = {record.lens.px_per_dioptre:.4g} px per dioptre with k = "
        f"{record.sigma_per_diameter:.3g} ({record.source})",
        highlight=False,
    )
    left = ", ".join(f"{name} {100 * v:.3g} %" for name, v in result.left_by_shape.items())
    console.print(
        f"shape: {record.shape} ({f'left unexplained by {left}' if left else 'not told'})",
        highlight=False,
    )
    write_record(record, arguments.out / "lens.yaml")
    plot_rgbd(result, arguments.out / "lens.png")
    console.print(f"written to {arguments.out}", highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.input is None and arguments.print is None:
        parser.error("expected pictures of the target, or --print FILE")
    console = Console()
    try:
        _check(arguments)
        if arguments.input is None:
            _check_print(parser, arguments)
        target = _target(arguments)
        if arguments.print is not None:
            print_target(target, arguments.print)
            width, height = target.page_mm
            console.print(
                f"{arguments.print}: {target.per_row}x{target.rows} circles of "
                f"{target.diameter_mm:g} mm, {2 * target.step_mm:g} mm apart in a row (step "
                f"{target.step_mm:g} mm), sheet {width:g} x {height:g} mm; print at 100 %"
                f"{_the_same_again(parser, arguments)}",
                highlight=False,
            )
        if arguments.input is not None and is_rgbd(arguments.input):
            _check_rgbd(parser, arguments)
            _from_rgbd(arguments, console)
        elif arguments.input is not None:
            _check_pictures(parser, arguments)
            result = _calibrate(arguments, target, console)
            show(result, console)
            write_yaml(result, arguments.out / "lens.yaml")
            plot(result, arguments.out / "lens.png")
            console.print(f"written to {arguments.out}", highlight=False)
    except (DdfdError, OSError) as error:
        print(f"ddfd-calibrate: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
