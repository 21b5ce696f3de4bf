"""``ddfd-lens``: what a lens can tell about distance, and how to focus it.

A lens at hand:      ddfd-lens --focal 12 --f-number 1.4 --sensor 1/1.8 --width 640 --range 0.5 5
with a focus:        ddfd-lens ... --focus 2
Which lens to buy:   ddfd-lens --suggest --sensor 1/1.8 --width 640 --range 0.5 5
A camera of papers:  ddfd-lens --lens nyu-2m --range 0.7 10

Without --focus the advised one is taken: behind everything, so that each blur has one distance.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from ddfd_ros.core.errors import DdfdError
from ddfd_ros.core.lens_calibration import LensCalibration
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.given_options import given_options
from ddfd_training.lens_advice import advice, best_focus, choices, suggest
from ddfd_training.lens_argument import parse_lens
from ddfd_training.lens_plan import (
    BLUR_ERROR_PX,
    DEAD_ZONE_PX,
    LARGEST_BLUR_PX,
    SENSORS_MM,
    Plan,
    sensor_size_mm,
)
from ddfd_training.lens_report import describe, distance_table, focus_table, suggestion_table

_OF_A_LENS = ("focal", "f_number", "sensor", "pitch")
_OF_ONE_LENS = ("lens", "focal", "f_number", "focus", "pitch", "rows")
"""What --suggest, which goes through common lenses, would leave without effect."""
_ROWS = 12


class LensQuestionError(DdfdError):
    """The arguments do not describe a lens and a range."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ddfd-lens",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    lens = parser.add_argument_group("the lens and the camera")
    lens.add_argument(
        "--lens",
        type=parse_lens,
        help="instead of the others: a preset, the .yaml of ddfd-calibrate, or four numbers in SI "
        "units",
    )
    lens.add_argument("--focal", type=float, metavar="MM", help="focal length in mm")
    lens.add_argument("--f-number", type=float, metavar="N", help="aperture, 1.4 for f/1.4")
    lens.add_argument(
        "--focus", type=float, metavar="M", help="focus distance in m, or inf; default: advised"
    )
    lens.add_argument(
        "--sensor", help=f"size by name ({', '.join(SENSORS_MM)}) or width x height in mm: 7.2x5.4"
    )
    lens.add_argument("--pitch", type=float, metavar="UM", help="instead: pixel pitch in um")
    lens.add_argument(
        "--width",
        type=int,
        metavar="PX",
        help="width in pixels of the image that is processed; default with a .yaml: as calibrated",
    )
    task = parser.add_argument_group("the task")
    task.add_argument(
        "--range", type=float, nargs=2, metavar=("NEAR", "FAR"), required=True, help="in m"
    )
    task.add_argument("--suggest", action="store_true", help="list common lenses that suit")
    task.add_argument("--blur-error", type=float, default=BLUR_ERROR_PX, metavar="PX")
    task.add_argument("--dead-zone", type=float, default=DEAD_ZONE_PX, metavar="PX")
    task.add_argument("--largest-blur", type=float, default=LARGEST_BLUR_PX, metavar="PX")
    parser.add_argument("--rows", type=int, help=f"lines of the table; default: {_ROWS}")
    parser.add_argument("--out", type=Path, help="folder for lens.json and lens.png")
    return parser


def _pitch_m(arguments: argparse.Namespace) -> float:
    """Pixel pitch of the processed image in metres."""
    if (arguments.pitch is None) == (arguments.sensor is None):
        got = "neither" if arguments.pitch is None else "both"
        raise LensQuestionError(
            f"expected the pixels' size: either --pitch UM, or --sensor with --width PX; got {got}"
        )
    if arguments.pitch is not None:
        if arguments.width is not None:
            raise LensQuestionError(
                "--width: expected none with --pitch, which must be that of the image as "
                f"processed, got {arguments.width}; leave it out"
            )
        return arguments.pitch * 1e-6
    if not arguments.width or arguments.width < 1:
        raise LensQuestionError(
            f"--sensor: expected also --width, the image's width in pixels, got "
            f"{'none' if arguments.width is None else arguments.width}"
        )
    return sensor_size_mm(arguments.sensor)[0] / 1000 / arguments.width


def _given_lens(arguments: argparse.Namespace) -> LensConfig | None:
    """The lens of --lens for the image that is processed; None: not given."""
    lens = arguments.lens
    if lens is None:
        return None
    beside = given_options(arguments, _OF_A_LENS)
    if beside:
        raise LensQuestionError(
            f"--lens: expected no {', '.join(beside)} beside it, which it says already; leave "
            "either out"
        )
    if not isinstance(lens, LensCalibration):
        if arguments.width is not None:
            raise LensQuestionError(
                "--width: expected none with a preset or numbers as --lens, whose pitch is that "
                f"of the image as processed, got {arguments.width}; leave it out, or change the "
                "pitch"
            )
        return lens
    width = lens.width if arguments.width is None else arguments.width
    if width < 1:
        raise LensQuestionError(f"--width: expected pixels from 1, got {width}")
    return lens.spread_lens.scaled(width / lens.width)


def _plan(arguments: argparse.Namespace) -> tuple[Plan, str]:
    """The question, with the focus asked for or the advised one, and which of the two."""
    lens, focus_m = _given_lens(arguments), arguments.focus
    if lens is None:
        if arguments.focal is None or arguments.f_number is None:
            raise LensQuestionError(
                "expected a lens: --lens PRESET, or --focal MM and --f-number N; "
                "or --suggest to see which suit"
            )
        wide = math.inf if focus_m is None else focus_m
        lens = LensConfig(arguments.focal / 1000, arguments.f_number, wide, _pitch_m(arguments))
        advised = focus_m is None
    else:
        if focus_m is not None:
            lens = LensConfig(lens.focal_length_m, lens.f_number, focus_m, lens.pixel_pitch_m)
        advised = False
    near_m, far_m = arguments.range
    plan = Plan(lens, near_m, far_m, arguments.blur_error, arguments.dead_zone)
    return (best_focus(plan).plan, "advised") if advised else (plan, "as asked")


def _show_plan(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """One lens: tables, sentences, and what goes to the JSON file."""
    plan, name = _plan(arguments)
    found = choices(plan, name)
    sentences = advice(plan, arguments.largest_blur)
    console.print(describe(plan), style="bold", highlight=False, soft_wrap=True)
    rows = _ROWS if arguments.rows is None else arguments.rows
    if rows < 1:
        raise LensQuestionError(f"--rows: expected 1 or more, got {rows}")
    console.print(distance_table(plan, rows))
    console.print(focus_table(found))
    for sentence in sentences:
        console.print(f"- {sentence}", highlight=False)
    lens = asdict(plan.lens)
    settings = ", ".join(f"{key}: {_yaml(value)}" for key, value in lens.items())
    console.print(f"For a recipe:  lens: {{{settings}}}", highlight=False, soft_wrap=True)
    if arguments.out is not None:
        from ddfd_training.lens_plot import plot_plan

        title = f"{arguments.range[0]:g} to {arguments.range[1]:g} m, {describe(plan)}"
        plot_plan(found, arguments.out / "lens.png", title)
    return {
        "lens": lens,
        "range_m": list(arguments.range),
        "blur_error_px": plan.blur_error_px,
        "dead_zone_px": plan.dead_zone_px,
        "plan": plan.summary(),
        "rows": plan.rows(rows),
        "choices": {choice.name: choice.plan.summary() for choice in found},
        "advice": sentences,
    }


def _yaml(value: float) -> str:
    return ".inf" if math.isinf(value) else f"{value:.6g}"


def _show_suggestions(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Common lenses for a sensor."""
    if arguments.sensor is None or not arguments.width:
        raise LensQuestionError("--suggest: expected --sensor and --width, got not both")
    if given := given_options(arguments, _OF_ONE_LENS):
        raise LensQuestionError(
            f"--suggest: expected no {', '.join(given)} beside it, since it goes through common "
            "lenses, each at its advised focus; leave either out"
        )
    found = suggest(
        sensor_size_mm(arguments.sensor),
        arguments.width,
        *arguments.range,
        largest_blur_px=arguments.largest_blur,
        blur_error_px=arguments.blur_error,
        dead_zone_px=arguments.dead_zone,
    )
    if not found:
        raise LensQuestionError(
            f"expected a lens whose blur stays below {arguments.largest_blur:g} px in the range, "
            "found none; allow more with --largest-blur, or give a smaller --width"
        )
    title = (
        f"lenses for {arguments.sensor} at {arguments.width} px, "
        f"{arguments.range[0]:g} to {arguments.range[1]:g} m, most exact first"
    )
    console.print(title, style="bold", highlight=False)
    console.print(suggestion_table(found))
    console.print(
        "A stronger lens (more px per dioptre) tells depth better; a shorter one sees more.",
        highlight=False,
    )
    return {"sensor": arguments.sensor, "width_px": arguments.width, "lenses": found}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    console = Console()
    try:
        show = _show_suggestions if arguments.suggest else _show_plan
        result = show(arguments, console)
        if arguments.out is not None:
            arguments.out.mkdir(parents=True, exist_ok=True)
            path = arguments.out / "lens.json"
            path.write_text(json.dumps(_plain(result), indent=2, allow_nan=False) + "\n")
            console.print(f"written to {arguments.out}", highlight=False)
    except (DdfdError, ValueError, OSError) as error:
        print(f"ddfd-lens: {error}", file=sys.stderr)
        return 2
    return 0


def _plain(value: Any) -> Any:
    """JSON values; infinity becomes null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    raise SystemExit(main())
