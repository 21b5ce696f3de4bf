"""The demonstration from input to results; ``make demo`` runs it."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from ddfd_demo.models import choose_model, model_contract
from ddfd_demo.options import DemoOptions, parse
from ddfd_demo.pictures import choose_scales, write_png
from ddfd_demo.prepare import Prepared, prepare
from ddfd_demo.report import Report
from ddfd_demo.results import Answer, join, keep_books
from ddfd_demo.scores import FrameScore, score
from ddfd_demo.sources.base import Pacing, Source, SourceInfo
from ddfd_demo.sources.detect import open_source
from ddfd_demo.spool import Spool
from ddfd_demo.video import MovieError, write_mp4
from ddfd_ros.core.blur_zones import takes_any_lens
from ddfd_ros.core.errors import DdfdError
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.thin_lens import LensConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; returns the exit code: 0 when every frame is accounted for."""
    options = parse(arguments)
    console = Console()
    # SIGINT, too: a shell hands it down ignored to what it starts in the background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        return _run(options, console)
    except (DdfdError, MovieError) as error:
        console.print(Text.assemble(("demo stopped: ", "bold red"), str(error)))
        return 1
    except KeyboardInterrupt:
        console.print("\nstopped; the node and its helpers have ended")
        return 130


def _run(options: DemoOptions, console: Console) -> int:
    source = _open(options)
    info = source.info
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
    if options.input is not None:
        return open_source(
            options.input,
            max_frames=options.max_frames,
            natural=options.natural,
            topic=options.topic,
        )
    from ddfd_demo.sources.builtin import BUILTIN_FRAMES, BuiltinSource

    return BuiltinSource(options.max_frames or BUILTIN_FRAMES)


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
    names = ("demo.png", "demo.mp4", "demo.json")
    console.print(Text("results: " + ", ".join(str(out / name) for name in names)))
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
    """``out/frames``, empty at first and, unless asked for, gone in the end."""
    folder = options.out / "frames"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        if not options.keep_frames:
            shutil.rmtree(folder, ignore_errors=True)


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
