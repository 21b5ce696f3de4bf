"""``ddfd-prepare``: your own recordings as training data, with the error of each registration.

A photo camera takes each view wide open and stopped down; a depth camera beside it gives depth:

  ddfd-prepare --defocused wide/ --sharp narrow/ --depth depth/ --color kinect_rgb/ --out mine
  ddfd-prepare --defocused wide/ --sharp narrow/ --out mine --lens 0.014,2.8,1.6,6e-6

writes mine/rgb (defocused), mine/sharp and mine/depth (16-bit millimetres), which ddfd-train and
ddfd-evaluate read as the data set "folder", mine/lens.json, and mine/registration.json with the
errors. Views that lie off by more than the limits are left out, and listed with the reason.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
from rich.console import Console
from rich.progress import track

from ddfd_ros.core.errors import DatasetError, DdfdError
from ddfd_ros.core.lens_calibration import LensCalibration
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.datasets.rgbd_folder import (
    FRAME_FOLDERS,
    LENS_FILE,
    REGISTRATION_FILE,
    depth_steps,
    frame_size_of,
    require_own_frames,
)
from ddfd_training.lens_argument import HELP as LENS_HELP
from ddfd_training.lens_argument import lens_at, parse_lens
from ddfd_training.prepare import (
    Aligned,
    PreparedView,
    PrepareOptions,
    align_view,
    finish_view,
)
from ddfd_training.prepare_align import MODELS
from ddfd_training.prepare_crop import Box, common
from ddfd_training.prepare_depth import INPAINTINGS
from ddfd_training.prepare_files import MAX_GAP_S, PAIRINGS, find_views
from ddfd_training.prepare_report import plain, print_report, summarise, write_json

DEFAULTS = PrepareOptions()
MIN_SIDE_PX = 32


def _size(text: str) -> tuple[int, int]:
    """Height and width from ``480x640``."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH like 480x640, got {text!r}")
    return int(parts[0]), int(parts[1])


def _side_px(text: str) -> int:
    """Length of a photograph's side."""
    if not text.isdecimal() or int(text) < MIN_SIDE_PX:
        raise argparse.ArgumentTypeError(f"expected at least {MIN_SIDE_PX} pixels, got {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ddfd-prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--defocused", type=Path, required=True, help="photograph, or folder, at wide aperture")
    add("--sharp", type=Path, help="the same views stopped down")
    add("--depth", type=Path, help="depth maps: 16-bit PNG, .npy or float .tif (metres)")
    add("--color", type=Path, help="the depth camera's colour pictures, in the depth's geometry; "
        "without them depth is taken to lie over the photographs already")  # fmt: skip
    add("--out", type=Path, required=True, help="folder to write")
    add("--pair", choices=PAIRINGS, default="name", help="by what files belong together")
    add("--max-gap", type=float, default=MAX_GAP_S, metavar="S", help="of --pair time")
    add("--lens", type=parse_lens, help=f"of the defocused photographs as given: {LENS_HELP}")
    add("--size", type=_size, help="HEIGHTxWIDTH of the result; default: the common part")
    add("--max-side", type=_side_px, default=DEFAULTS.max_side_px, metavar="PX",
        help="larger photographs are scaled down to this before anything else")  # fmt: skip
    add("--no-denoise", action="store_true", help="leave the depth maps as they are")
    add("--denoise-images", type=float, default=0.0, metavar="STRENGTH",
        help="non-local means on the sharp photograph, 3 is mild; 0: none")  # fmt: skip
    add("--inpaint", choices=INPAINTINGS, default=DEFAULTS.inpaint, help="close gaps in depth")
    add("--inpaint-reach", type=int, default=DEFAULTS.inpaint_reach_px, metavar="PX",
        help="but not farther than this from a measured depth")  # fmt: skip
    add("--model", choices=MODELS, default=DEFAULTS.model,
        help="how the depth camera's picture lies in the photograph")  # fmt: skip
    add("--max-error", type=float, default=DEFAULTS.max_error_px, metavar="PX",
        help="largest registration error of the photographs")  # fmt: skip
    add("--max-depth-error", type=float, default=DEFAULTS.max_depth_error_px, metavar="PX",
        help="largest registration error of depth")  # fmt: skip
    add(
        "--keep-bad", action="store_true", help="write views beyond the limits too, only mark them"
    )
    add("--depth-unit", type=float, default=1e-3, metavar="METRES", help="per step of 16 bits")
    return parser


def _options(arguments: argparse.Namespace) -> PrepareOptions:
    return PrepareOptions(
        max_side_px=arguments.max_side,
        size=arguments.size,
        denoise=not arguments.no_denoise,
        denoise_images=arguments.denoise_images,
        inpaint=arguments.inpaint,
        inpaint_reach_px=arguments.inpaint_reach,
        model=arguments.model,
        max_error_px=arguments.max_error,
        max_depth_error_px=arguments.max_depth_error,
        depth_unit_m=arguments.depth_unit,
    )


def run(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Prepare a recording as the command line says; returns the report that is written.

    Raises:
        DdfdError: Files that cannot be used, or no view within the limits.
    """
    options = _options(arguments)
    sources = (arguments.defocused, arguments.sharp, arguments.depth, arguments.color)
    _require_other_folder(arguments.out, [path for path in sources if path is not None])
    views, alone = find_views(*sources, pair=arguments.pair, max_gap_s=arguments.max_gap)
    photo_size = frame_size_of(views[0].defocused)  # of one that was cut before, the frame's
    given: LensConfig | LensCalibration | None = arguments.lens
    lens = None if given is None else lens_at(given, photo_size[1], photo_size[0])
    bar = track(views, description="registering", console=console)
    aligned = [align_view(view, options) for view in bar]
    _require_one_size(aligned)
    good = [view for view in aligned if not view.report.problem]
    chosen = aligned if arguments.keep_bad else good
    reports = {view.files.name: view.report for view in aligned}
    box = _common_box(good, chosen)
    kinds = [kind for kind in ("sharp", "depth") if getattr(arguments, kind) is not None]
    names = [view.files.name for view in chosen]
    require_own_frames(arguments.out, ["rgb", *kinds], names)
    arguments.out.mkdir(parents=True, exist_ok=True)
    # Until all is written: so that the same command may go on where it was stopped.
    write_json(arguments.out / REGISTRATION_FILE, {"registered": False})
    too_far = 0
    for view in track(chosen, description="writing", console=console):
        prepared = finish_view(view, box, options)
        too_far += _write_view(arguments.out, view.files.name, prepared)
        reports[view.files.name] = prepared.report
    summary = summarise(list(reports.values()), options) | {
        "written": len(chosen),
        "without_partner": alone,
        "depth_too_far_px": too_far,
    }
    scale = _scale(chosen, box, options) if chosen else 1.0
    report: dict[str, Any] = {
        # With a bad pair among them, each is registered again when used, and judged.
        "registered": not any(view.report.problem for view in chosen),
        "summary": summary,
        "options": asdict(options),
        "common_part_px": asdict(box),
        "frame_px": [round(scale * side) for side in photo_size] if chosen else None,
        "views": [plain(asdict(one)) for one in reports.values()],
    }
    write_json(arguments.out / REGISTRATION_FILE, report)
    if lens is not None and chosen:
        write_json(arguments.out / LENS_FILE, {"lens": asdict(lens.scaled(scale))})
    return report


def _require_other_folder(out: Path, sources: Sequence[Path]) -> None:
    """Check that what is written to lies apart from the recording.

    Raises:
        DatasetError: Originals might be overwritten.
    """
    given = [path.resolve() for path in sources]
    for target in [(out / kind).resolve() for kind in FRAME_FOLDERS]:
        if any(p == target or p in target.parents or target in p.parents for p in given):
            raise DatasetError(
                f"--out: expected a folder of its own, got {out}, whose {target.name}/ lies in "
                "the recording or holds it; give one beside the recording"
            )


def _require_one_size(aligned: Sequence[Aligned]) -> None:
    """Check that the photographs' pixels are alike, turned or not: one lens is written for all.

    Raises:
        DatasetError: They have several sizes.
    """
    first = aligned[0]
    for view in aligned:
        if sorted(view.photo_px) != sorted(first.photo_px):
            raise DatasetError(
                f"--defocused: expected photographs of one size, got {first.photo_px} in "
                f"{first.files.name} and {view.photo_px} in {view.files.name}; blur is counted in "
                "pixels: prepare each size by itself"
            )


def _common_box(good: Sequence[Aligned], chosen: Sequence[Aligned]) -> Box:
    """The part that all views show, decided by the good ones."""
    if not chosen:
        return Box(0, 0, 0, 0)
    box = common([view.box for view in good or chosen])
    if box.height * box.width == 0:
        raise DatasetError(
            "expected a part that all views share, got none; is the depth camera fixed to the "
            "photo camera? Prepare the views one by one if it is not"
        )
    return box


def _scale(chosen: Sequence[Aligned], box: Box, options: PrepareOptions) -> float:
    """Size of what is written over that of the photographs as given."""
    scale = chosen[0].scale
    return scale * options.size[0] / box.shaped(*options.size).height if options.size else scale


def _write_view(out: Path, name: str, view: PreparedView) -> int:
    """Write the view's images as PNG; returns how many pixels are too far for its depth."""
    images, too_far = {"rgb": view.defocused_rgb, "sharp": view.sharp_rgb}, 0
    if view.depth_m is not None:
        images["depth"], too_far = depth_steps(view.depth_m)
    for folder, image in images.items():
        if image is not None:
            path = out / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
            if not cv2.imwrite(str(path), pixels):
                raise DatasetError(f"expected to write an image to {path}; is the disk full?")
    return too_far


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 2 if nothing could be prepared."""
    arguments = _parser().parse_args(argv)
    console = Console()
    try:
        report = run(arguments, console)
    except (DdfdError, OSError) as error:
        print(f"ddfd-prepare: {error}", file=sys.stderr)
        return 2
    print_report(report, arguments.out, console)
    if not report["summary"]["written"]:
        print(
            "ddfd-prepare: expected a view within the limits, got none; see the table for the "
            "reasons",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
