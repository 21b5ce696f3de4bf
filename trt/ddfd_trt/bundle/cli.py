"""``ddfd-bundle``: pack TensorRT and this project for a GPU machine that can install nothing."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeElapsedColumn

from ddfd_ros.core.errors import DdfdError
from ddfd_trt.bundle.check import check_tree
from ddfd_trt.bundle.parts import MANIFEST, PREFIX, Manifest, check_parts, copy_scripts, pack
from ddfd_trt.bundle.plan import COMPRESSIONS, KINDS, BundleError, BundlePlan, default_cache
from ddfd_trt.bundle.tree import SCRIPTS, make_tree

EXIT_OK, EXIT_ERROR, EXIT_STOPPED = 0, 2, 130
_MB = 10**6


def main(argv: Sequence[str] | None = None) -> int:
    """``ddfd-bundle``. Returns 0, 2 after an error message, 130 when it was stopped."""
    arguments = _parser().parse_args(argv)
    console = Console(stderr=True)
    try:
        if arguments.check_parts:
            manifest = check_parts(arguments.out)
            print(f"{arguments.out}: {_summary(manifest)}: all parts are whole")
            return EXIT_OK
        plan = _plan(arguments)
        manifest = make_bundle(plan, console, keep_tree=arguments.keep_tree)
    except (DdfdError, OSError) as error:
        console.print(
            f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        return EXIT_ERROR
    except KeyboardInterrupt:
        console.print("stopped; what was downloaded and compiled is kept for the next time")
        return EXIT_STOPPED
    print(f"{plan.out}: {_summary(manifest)}")
    print("copy this folder to the GPU machine; there: sh run.sh ddfd-engine MODEL --size 640x480")
    return EXIT_OK


def make_bundle(plan: BundlePlan, console: Console, *, keep_tree: bool = False) -> Manifest:
    """Make the folder, check it, and write it in parts with the scripts to ``plan.out``.

    Raises:
        BundleError: A step failed; the message says what to do.
    """
    refuse_foreign_folder(plan.out)
    begun = time.monotonic()
    tree = plan.cache / f"tree-{plan.kind}"
    columns = (BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress("{task.description}", *columns, console=console, transient=True) as progress:

        def tell(text: str) -> None:
            line = f"{time.monotonic() - begun:5.0f} s  {text}"
            progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

        task = progress.add_task("unpacking", total=None)
        facts = make_tree(plan, tree, tell, lambda count: progress.advance(task, count))
        progress.remove_task(task)
        check_tree(tree, plan.kind, tell)
        unpacked = int(facts["unpacked_bytes"])
        tell(f"packing {unpacked / _MB:.0f} MB")
        task = progress.add_task("packing", total=unpacked)
        manifest = pack(
            tree, plan.out, plan.part_mb * _MB, facts, lambda count: progress.advance(task, count),
            compression=plan.compression,
        )  # fmt: skip
    copy_scripts(SCRIPTS, plan.out, ("join.sh",))
    copy_scripts(SCRIPTS, plan.out, ("start.sh",))
    (plan.out / "start.sh").rename(plan.out / "run.sh")
    if not keep_tree:
        shutil.rmtree(tree)
    return manifest


def refuse_foreign_folder(out: Path) -> None:
    """Refuse to write between files that are no bundle's.

    Raises:
        BundleError: ``out`` is a file, or holds something else.
    """
    if out.exists() and not out.is_dir():
        raise BundleError(f"{out}: expected a folder, got a file; name another with --out")
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    known = (PREFIX, MANIFEST, "join.sh", "run.sh")
    if strange := [name for name in names if not name.startswith(known)]:
        raise BundleError(
            f"{out}: expected an empty folder or an older bundle, got {strange[:5]} in it; name "
            "another with --out"
        )


def _summary(manifest: Manifest) -> str:
    facts = manifest.facts
    return (
        f"kind {facts.get('kind')}, TensorRT {facts.get('tensorrt')}, Python "
        f"{facts.get('python')}, {len(manifest.parts)} parts, {manifest.size / _MB:.0f} MB, needs "
        f"glibc {facts.get('glibc')}"
    )


def _plan(arguments: argparse.Namespace) -> BundlePlan:
    values = {
        "kind": arguments.kind,
        "part_mb": arguments.part_mb,
        "compression": arguments.compression,
        "cache": arguments.cache.absolute(),
        "models": tuple(arguments.model),
        "add": tuple(arguments.add),
        "python": arguments.python,
        "debian_mirror": arguments.debian_mirror,
        "suite": arguments.suite,
    }
    if arguments.project is not None:
        values["project"] = arguments.project.absolute()
    return BundlePlan(arguments.out, **values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ddfd-bundle",
        description="Pack Python, TensorRT, pycuda and this project into parts that a Linux "
        "machine with nothing but an NVIDIA driver can join and run. Needs pip, a C and a C++ "
        "compiler, binutils, and no GPU.",
    )
    parser.add_argument("--out", type=Path, default=Path("ddfd-bundle"), metavar="FOLDER",
                        help="where the parts go (default: ddfd-bundle)")  # fmt: skip
    parser.add_argument("--kind", choices=KINDS, default=BundlePlan.kind,
                        help="build: engines are built and run; run: they are run only, a fifth "
                        "of the size (default: build)")  # fmt: skip
    parser.add_argument("--part-mb", type=int, default=BundlePlan.part_mb, metavar="MB",
                        help=f"largest part (default: {BundlePlan.part_mb})")  # fmt: skip
    parser.add_argument("--compression", choices=COMPRESSIONS, default=BundlePlan.compression,
                        help="xz: half the size for several minutes more; there it takes xz or a "
                        "python3 with lzma to unpack (default: gzip)")  # fmt: skip
    parser.add_argument("--cache", type=Path, default=default_cache(), metavar="FOLDER",
                        help="keeps what was downloaded and compiled (default: in the user's "
                        "cache folder)")  # fmt: skip
    parser.add_argument("--python", type=Path, metavar="PROGRAM",
                        help="a Python 3.10 of this machine to copy, with its headers (default: "
                        "one out of Debian or Ubuntu packages)")  # fmt: skip
    parser.add_argument("--debian-mirror", metavar="URL",
                        help="where to take those packages (default: as this machine's apt is "
                        "configured)")  # fmt: skip
    parser.add_argument("--suite", default=BundlePlan.suite,
                        help="the mirror's suite, one with Python 3.10 (default: "
                        f"{BundlePlan.suite})")  # fmt: skip
    parser.add_argument("--model", type=Path, action="append", default=[], metavar="FILE",
                        help="ONNX model to put beside the shipped ones; repeatable")  # fmt: skip
    parser.add_argument("--add", action="append", default=[], metavar="PACKAGE",
                        help="further package, as pip takes it (opencv-python-headless: for "
                        "--images and --calibrate); repeatable")  # fmt: skip
    parser.add_argument("--project", type=Path, metavar="FOLDER",
                        help="checkout whose code goes in (default: this one's)")  # fmt: skip
    parser.add_argument("--keep-tree", action="store_true",
                        help="leave the unpacked folder in the cache")  # fmt: skip
    parser.add_argument("--check-parts", action="store_true",
                        help="only compare the parts in --out with their manifest")  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
