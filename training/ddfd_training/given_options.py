"""Which options a command line gives, for messages that refuse those it would ignore."""

from __future__ import annotations

import argparse
from collections.abc import Iterable


def given_options(
    arguments: argparse.Namespace,
    names: Iterable[str],
    parser: argparse.ArgumentParser | None = None,
) -> list[str]:
    """Those of ``names`` that are given, as they are written there: ``f_number`` as --f-number.

    Args:
        arguments: What the parser read.
        names: Of its attributes.
        parser: It has the defaults; None: they are None.
    """
    return [
        f"--{name.replace('_', '-')}"
        for name in names
        if getattr(arguments, name) != (None if parser is None else parser.get_default(name))
    ]
