"""Commands whose packages may be missing: imported when called, and a missing one is one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

_OURS = ("ddfd_ros", "ddfd_training", "ddfd_trt", "ddfd_demo")


@dataclass(frozen=True)
class LateCommand:
    """A console script that says which package is missing where its imports fail.

    Attributes:
        module: Holds the command.
        function: Its name there; it returns the exit code.
        requirements: The file in ``requirements/`` that lists what it needs.
    """

    module: str
    function: str
    requirements: str

    def load(self) -> Callable[[], int]:
        """Import the command.

        Raises:
            ModuleNotFoundError: A package is missing.
        """
        function: Callable[[], int] = getattr(import_module(self.module), self.function)
        return function

    def __call__(self) -> int:
        """Run the command; returns its exit code, 2 where a package is missing."""
        try:
            return self.load()()
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] in _OURS:
                raise  # a fault of ours, to be seen whole
            print(
                f"{Path(sys.argv[0]).name}: expected a Python package with the module "
                f"{error.name}, found none; install what the command needs: pip install -r "
                f"requirements/{self.requirements}",
                file=sys.stderr,
            )
            return 2
