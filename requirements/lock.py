"""Rewrites ``constraints.txt`` from pip's own resolution for each supported Python.

Once per Python version (3.10, 3.11, 3.12), in an environment of that version::

    pip install --dry-run --ignore-installed --report py310.json \
        -r build.txt -r runtime.txt -r ros.txt -r training.txt -r demo.txt -r dev.txt

and then ``python requirements/lock.py py310.json py311.json py312.json``.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from pathlib import Path

HEADER = """\
# The exact version of every package that `make` installs, direct or not: the one place for pins.
# The other files here say what is needed and which ranges can work; setup.py declares those.
# Written by lock.py (see there); where ROS 2 is sourced, its own versions stand instead.
"""
# torch names the exact versions of its CUDA packages itself, and other builds of it have none.
PINNED_BY_TORCH = re.compile(r"^(nvidia-|cuda-|triton$)")


def read_report(path: Path) -> tuple[str, dict[str, str]]:
    """Returns a report's Python version ("3.10") and its versions by normalised package name."""
    report = json.loads(path.read_text(encoding="utf-8"))
    versions = {}
    for item in report["install"]:
        name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
        if not PINNED_BY_TORCH.match(name):
            versions[name] = item["metadata"]["version"].partition("+")[0]
    return report["environment"]["python_version"], versions


def lines(reports: list[tuple[str, dict[str, str]]]) -> list[str]:
    """Returns one constraint per package, or one per Python version where the versions differ."""
    pythons = [python for python, _ in reports]
    by_name: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for python, versions in reports:
        for name, version in versions.items():
            by_name[name][version].append(python)
    result = []
    for name in sorted(by_name):
        for version, where in by_name[name].items():
            if len(by_name[name]) == 1:
                marker = ""
            elif where[-1] == pythons[-1]:
                marker = f'; python_version >= "{where[0]}"'
            else:
                marker = "; " + " or ".join(f'python_version == "{python}"' for python in where)
            result.append(f"{name}=={version}{marker}")
    return result


def main(arguments: list[str]) -> None:
    """Writes ``constraints.txt`` beside this file from the reports named in ``arguments``."""
    if not arguments:
        raise SystemExit("expected pip's reports, oldest Python first, got none: see above")
    reports = [read_report(Path(argument)) for argument in arguments]
    target = Path(__file__).with_name("constraints.txt")
    target.write_text(HEADER + "\n".join(lines(reports)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
