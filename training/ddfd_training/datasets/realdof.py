"""RealDOF: 50 pairs taken at once by two cameras behind one lens (Lee et al. 2021).

``RealDOF/{source,target}/01.png`` to ``50.png``, about 2320x1536; the authors aligned geometry and
colour of the pairs. For testing only.
"""

from __future__ import annotations

from pathlib import Path

from ddfd_training.datasets.base import first_folder
from ddfd_training.datasets.pairs import NamedPairs


class RealDof(NamedPairs):
    """Natural pairs without depth.

    Args:
        root: The folder with ``source`` and ``target``, or the one that holds ``RealDOF``.
        split: ``test``, all there is.

    Raises:
        DatasetError: The layout is another one.
    """

    name = "realdof"
    splits = ("test",)

    def __init__(self, root: str | Path, split: str = "test") -> None:
        """List and pair the files."""
        self.check_split(split)
        base = Path(root)
        source = first_folder(
            (base / "source", base / "RealDOF" / "source"), self.name, "source/ and target/"
        )
        super().__init__(source, first_folder((source.with_name("target"),), self.name, "images"))
