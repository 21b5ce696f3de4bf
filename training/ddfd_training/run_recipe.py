"""What a run was begun with, kept beside its checkpoints: another recipe does not go on with them.

Without that, a second training of one name through another lens would end at once, with the
weights of the first and the promises of the second.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ddfd_training.config import TrainConfig

FILE = "recipe.json"
_FREE = (
    "steps", "save_every", "validate_every", "precision", "threads", "evaluate", "stages",
    "lens_px",  # the lens itself is compared
)  # fmt: skip
_FREE_OF_DATA = ("cache", "workers")


def check_recipe(folder: Path, config: TrainConfig) -> None:
    """Keep what decides a run beside its checkpoints, or compare with what is kept there.

    How long it is, where its data lie and how the work is done may change.

    Args:
        folder: Of the run.
        config: Its recipe.

    Raises:
        ValueError: The run was begun with another one; the message names what differs.
    """
    now = json.loads(json.dumps(_decisive(config), default=str))
    path = folder / FILE
    begun = (folder / "last.ckpt").is_file() or (folder / f"{config.name}.pt").is_file()
    if begun and path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        if changed := sorted(set(_different(before, now))):
            raise ValueError(
                f"{folder}: expected the recipe that this run was begun with ({FILE} there), got "
                f"another {', '.join(changed)}; give it another name or another folder of runs "
                "(--out), or delete that folder to begin anew"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{FILE}.{os.getpid()}")  # of several processes none reads a half
    temporary.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def _decisive(config: TrainConfig) -> dict[str, Any]:
    """The recipe without what may change."""
    values = {key: value for key, value in asdict(config).items() if key not in _FREE}
    data = {key: value for key, value in values["data"].items() if key not in _FREE_OF_DATA}
    data["sources"] = [
        {key: value for key, value in source.items() if key != "root"}
        for source in data["sources"]
    ]
    # Where the weights that it starts from lie may change, too.
    return values | {"data": data, "init": Path(config.init).name}


def _different(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Names of the settings that differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before.keys() | now.keys():
            yield from _different(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for one, other in zip(before, now, strict=True):
            yield from _different(one, other, name)
    elif before != now:
        yield name
