"""The demonstration from input to results; ``make demo`` runs it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from ddfd_demo.chain import ChainRecord, run_chain
from ddfd_demo.commands import ChainOptions, lens_parameters
from ddfd_demo.errors import InputError
from ddfd_demo.models import choose_model, model_contract
from ddfd_demo.options import DemoOptions, parse
from ddfd_demo.pictures import choose_scales, write_png
from ddfd_demo.prepare import Prepared, prepare
from ddfd_demo.report import Report
from ddfd_demo.results import Answer, join, keep_books
from ddfd_demo.scores import FrameScore, score
from ddfd_demo.sources.base import Pacing, Source, SourceInfo
from ddfd_demo.sources.detect import detect_kind, open_source
from ddfd_demo.spool import FOLDER, Spool, foreign_names, remove_spool
from ddfd_demo.video import MovieError, write_mp4
from ddfd_ros.core.blur_zones import takes_any_lens
from ddfd_ros.core.errors import DdfdError
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.thin_lens import LensConfig

RESULTS = ("demo.png", "demo.mp4", "demo.json")
"""Written into the folder of results, over those of an earlier run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; returns the exit code: 0 when every frame is accounted for."""
    options = parse(arguments)
    console = Console()
    # SIGINT, too: a shell hands it down ignored to what it starts in the background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        return _run(options, console)
    except (DdfdError, MovieError, OSError) as error:
        console.print(Text.assemble(("demo stopped: ", "bold red"), str(error)))
        return 1
    except KeyboardInterrupt:
        console.print("\nstopped; the node and its helpers have ended")
        return 130


def _run(options: DemoOptions, console: Console) -> int:
    _check_apart(options)
    source = _open(options)
    info = source.info
    _refuse_rate(options, info)
    model = choose_model(options.model, info.model)
    contract = model_contract(model)
    console.print(Text.assemble(("input  ", "bold"), info.title))
    console.print(Text.assemble(("model  ", "bold"), f"{model.name}, {_describe(contract)}"))
    options.out.mkdir(parents=True, exist_ok=True)
    with _spool_folder(options) as folder:
        spool = Spool(folder)
        prepared = _prepare(source, spool, contract, options, console)
        chain = _chain_options(info, options, model, contract, prepared.lens, len(source))
        record = _play(spool, chain, options, prepared.count, console)
        chain = _as_played(chain, record)
        answers = join(record, spool.frames())
        scores = _score(answers, info, contract, console)
        report = Report(
            info,
            prepared.notes,
            chain,
            record,
            keep_books(record, answers),
            answers,
            scores,
            _model_facts(model, contract, record),
        )
        _write(report, options.out, console)
    report.print(console)
    return _verdict(report, options.out, console)


def _open(options: DemoOptions) -> Source:
    kind = "builtin" if options.input is None else detect_kind(options.input)
    _refuse_unused(options, kind)
    if options.input is not None:
        if kind == "camera":
            _refuse_pacing(options)
        return open_source(
            options.input,
            max_frames=options.max_frames,
            natural=options.natural,
            topic=options.topic,
        )
    from ddfd_demo.sources.builtin import BUILTIN_FRAMES, BuiltinSource

    return BuiltinSource(options.max_frames or BUILTIN_FRAMES)


def _refuse_unused(options: DemoOptions, kind: str) -> None:
    """Refuse options of other kinds of input, which this one would ignore.

    Raises:
        InputError: It names the option.
    """
    for given, option, wanted, needs in (
        (options.topic is not None, "--topic", "bag", "a ROS 2 bag"),
        (options.natural, "--natural", "rgbd", "a folder of your own with rgb/ and depth/"),
    ):
        if given and kind != wanted:
            raise InputError(
                f"{option}: expected with {needs} as INPUT, got it with "
                f"{options.input or 'no input'}; leave it out"
            )


def _refuse_pacing(options: DemoOptions) -> None:
    """A camera has a clock of its own, and does not wait.

    Raises:
        InputError: ``--rate`` or ``--pacing wait`` was given.
    """
    given = [] if options.rate_hz is None else [f"--rate {options.rate_hz:g}"]
    given += ["--pacing wait"] if options.pacing == "wait" else []
    if given:
        raise InputError(
            f"camera {options.input}: expected to be played at its own rate, got "
            f"{' and '.join(given)}; leave that out, or record a video and play it"
        )


def _refuse_rate(options: DemoOptions, info: SourceInfo) -> None:
    """What waits for its answers has no rate.

    Raises:
        InputError: ``--rate`` was given with it.
    """
    pacing = info.pacing if options.pacing == "auto" else options.pacing
    if options.rate_hz is not None and pacing == "wait":
        raise InputError(
            f"--rate: expected with a stream, got {options.rate_hz:g} with frames that wait for "
            "their answers; add --pacing stream, or leave it out"
        )


def _check_apart(options: DemoOptions) -> None:
    """Refuse an input that this run would delete or write over.

    Raises:
        InputError: It is one of the results, or lies in the folder of the frames.
    """
    if options.input is None:
        return
    given = Path(options.input).expanduser().resolve()
    replaced = {(options.out / name).resolve() for name in (*RESULTS, FOLDER)}
    if not replaced.isdisjoint((given, *given.parents)):
        raise InputError(
            f"{options.input}: expected an input that this run does not replace, got one of "
            f"{', '.join((*RESULTS, FOLDER))} in {options.out}; choose another --out"
        )


def _prepare(
    source: Source, spool: Spool, contract: ModelContract, options: DemoOptions, console: Console
) -> Prepared:
    """Fill the spool; a camera's frames come only while it is played."""
    if source.info.kind == "camera":
        return Prepared(len(source), ())
    with _bar(console) as bar:
        task = bar.add_task("reading and blurring", total=len(source))
        return prepare(
            source,
            spool,
            contract.lens,
            any_lens=takes_any_lens(contract),
            scale=options.scale,
            progress=lambda done, _: bar.update(task, completed=done),
        )


def _play(
    spool: Spool, chain: ChainOptions, options: DemoOptions, count: int, console: Console
) -> ChainRecord:
    with _bar(console) as bar:
        task = bar.add_task("starting node, recorder, player", total=count)

        def show(sent: int, answered: int) -> None:
            bar.update(task, completed=sent, description=f"playing, {answered} answered")

        def begun(start_s: float) -> None:
            bar.update(task, description=f"playing (started in {start_s:.1f} s)")

        return run_chain(spool.folder, chain, options.out / "logs", show, begun)


def _score(
    answers: list[Answer], info: SourceInfo, contract: ModelContract, console: Console
) -> list[FrameScore]:
    with _bar(console) as bar:
        task = bar.add_task("comparing with the truth", total=sum(a.answered for a in answers))
        return score(
            answers,
            info,
            (contract.depth_min_m, contract.depth_max_m),
            lambda done: bar.update(task, completed=done),
        )


def _write(report: Report, out: Path, console: Console) -> None:
    """The three results; without an answer only the figures."""
    report.write_json(out / "demo.json")
    for stale in (out / "demo.png", out / "demo.mp4"):
        stale.unlink(missing_ok=True)
    if not report.books.answered:
        return
    answers = list(report.answers)
    with _bar(console) as bar:
        task = bar.add_task("drawing demo.png and demo.mp4", total=len(answers) + 1)
        write_png(out / "demo.png", answers, report.headline(), report.info.title)
        bar.advance(task)
        rate_hz = report.options.rate_hz if report.options.pacing == "stream" else None
        write_mp4(
            out / "demo.mp4",
            answers,
            choose_scales([a for a in answers if a.answered]),
            rate_hz=rate_hz,
            progress=lambda done: bar.update(task, completed=done + 1),
        )


def _verdict(report: Report, out: Path, console: Console) -> int:
    books = report.books
    if not books.answered:
        log = out / "logs" / "node.log"
        text = f"expected answers, got none to {books.sent} frames; see {log}"
        console.print(Text.assemble(("demo stopped: ", "bold red"), text))
        return 1
    console.print(Text("results: " + ", ".join(str(out / name) for name in RESULTS)))
    if not books.balanced:
        text = (
            f"{books.unaccounted} frames that the node received are neither answered nor counted "
            f"as dropped; see {out / 'demo.json'}"
        )
        console.print(Text.assemble(("the books do not balance: ", "bold red"), text))
        return 1
    return 0


def _chain_options(
    info: SourceInfo,
    options: DemoOptions,
    model: Path,
    contract: ModelContract,
    lens: LensConfig | None,
    count: int,
) -> ChainOptions:
    pacing: Pacing = info.pacing
    if options.pacing == "wait" or options.pacing == "stream":
        pacing = "wait" if options.pacing == "wait" else "stream"
    camera = options.input if info.kind == "camera" else None
    given = dict(item.split("=", 1) for item in options.params)
    known = {} if "lens_calibration" in given else lens_parameters(lens)
    return ChainOptions(
        model,
        contract.outputs,
        options.runtime,
        pacing="stream" if camera else pacing,
        rate_hz=options.rate_hz or info.rate_hz,
        constant_rate=options.rate_hz is not None,
        total=count if camera else 0,
        camera=camera,
        scale=options.scale or 1.0,
        parameters={**known, **given},
    )


def _as_played(chain: ChainOptions, record: ChainRecord) -> ChainOptions:
    """How it really was played: the rate of a camera is that of its frames' stamps."""
    stamps_ns = sorted(record.sent)
    if chain.camera is None or len(stamps_ns) < 2:
        return chain
    return replace(chain, rate_hz=(len(stamps_ns) - 1) * 1e9 / (stamps_ns[-1] - stamps_ns[0]))


def _describe(contract: ModelContract) -> str:
    lens = contract.lens
    seen = "unknown lens"
    if lens is not None:
        seen = (
            f"lens f {lens.focal_length_m * 1e3:g} mm, f/{lens.f_number:g}, focus "
            f"{lens.focus_distance_m:g} m, pixels {lens.pixel_pitch_m * 1e6:.3g} um"
        )
    return f"{contract.network}, {contract.parameter_count / 1e6:.2f} M parameters, {seen}"


def _model_facts(model: Path, contract: ModelContract, record: ChainRecord) -> dict[str, object]:
    return {
        "file": model.name,
        "network": contract.network,
        "parameters": contract.parameter_count,
        "weights_sha256": contract.weights_sha256,
        "runtime": record.counters.get("runtime", ""),
        "device": record.counters.get("device", ""),
    }


@contextmanager
def _spool_folder(options: DemoOptions) -> Iterator[Path]:
    """The spool, empty at first and, unless asked for, gone in the end.

    Raises:
        InputError: Something lies there that is not of an earlier run; nothing was deleted.
    """
    folder = options.out / FOLDER
    if foreign := foreign_names(folder):
        raise InputError(
            f"{folder}: expected nothing but the frames of an earlier run, got "
            f"{', '.join(foreign[:4])}{' ...' if len(foreign) > 4 else ''}; move that away or "
            "choose another --out"
        )
    remove_spool(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        if not options.keep_frames:
            remove_spool(folder)


def _bar(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<34}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
