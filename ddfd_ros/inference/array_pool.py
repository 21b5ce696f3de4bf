"""Memory for answers that is used again, so that a frame need not wait for fresh pages."""

from __future__ import annotations

import sys

import numpy as np

_KEPT_ARRAYS = 4


class ArrayPool:
    """Arrays of one shape and type, each given out again once nobody holds it any more.

    The system hands out fresh memory page by page while it is first written to, which takes longer
    for an answer of some megabytes than the copy itself. When all arrays are held, the next one is
    allocated; so many are kept that a slow reader or two cost nothing.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._shape, self._dtype = shape, dtype
        self._arrays: list[np.ndarray] = []

    def take(self) -> np.ndarray:
        """An array with arbitrary values, its taker's until the last view of it is gone."""
        for index in range(len(self._arrays)):
            if _holders(self._arrays, index) == _NO_HOLDERS:
                return self._arrays[index].view()
        array = np.empty(self._shape, self._dtype)
        if len(self._arrays) < _KEPT_ARRAYS:
            self._arrays.append(array)
        return array.view()


def _holders(arrays: list[np.ndarray], index: int) -> int:
    """How often an array is referred to: each view of it, or of a view of it, counts as one."""
    return sys.getrefcount(arrays[index])


# Measured rather than 2: the interpreter's own references differ between versions of Python.
_NO_HOLDERS = _holders([np.empty(0)], 0)
