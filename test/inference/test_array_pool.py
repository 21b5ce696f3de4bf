"""Memory for answers: used again when nobody looks at it any more, never before."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from ddfd_ros.inference.array_pool import ArrayPool

SHAPE = (4, 6)


@pytest.fixture
def pool():
    return ArrayPool(SHAPE, np.dtype(np.float32))


def fill_many(pool: ArrayPool) -> None:
    for number in range(10):
        array = pool.take()
        assert array.shape == SHAPE
        array[...] = 100 + number


@pytest.mark.parametrize(
    "keep",
    [
        lambda array: array,
        lambda array: array[1:3],
        lambda array: array[:, ::2].T[1],
        lambda array: array.view(np.uint8).reshape(-1),
        memoryview,
        lambda array: memoryview(array[1:]),
        lambda array: np.asarray(memoryview(array))[0],
        lambda array: iter(array),
        lambda array: array.base,
    ],
)
def test_what_is_held_in_any_way_is_not_written_to(pool, keep):
    array = pool.take()
    array[...] = 7
    address = array.ctypes.data
    kept = keep(array)
    del array
    given = {pool.take().ctypes.data for _ in range(10)}
    fill_many(pool)
    assert address not in given
    del kept
    assert address in {pool.take().ctypes.data for _ in range(10)}


def test_a_holder_in_another_thread_counts(pool):
    ready, go_on, seen = threading.Event(), threading.Event(), []

    def hold(array):
        part = array[2:]
        del array
        ready.set()
        go_on.wait(10)
        seen.append(float(part.max()))

    array = pool.take()
    array[...] = 7
    thread = threading.Thread(target=hold, args=(array,))
    thread.start()
    del array
    assert ready.wait(10)
    fill_many(pool)
    go_on.set()
    thread.join()
    assert seen == [7.0]


def test_more_holders_than_kept_arrays_get_memory_of_their_own(pool):
    held = []
    for number in range(12):
        array = pool.take()
        array[...] = number
        held.append(array)
    assert [float(array.mean()) for array in held] == list(range(12))


def test_what_a_taker_does_to_its_array_ends_with_it(pool):
    array = pool.take()
    array.flags.writeable = False
    array.shape = (6, 4)
    del array
    fill_many(pool)


def test_nothing_is_allocated_once_it_runs(pool, monkeypatch):
    held = [pool.take()]
    made = []
    empty = np.empty
    monkeypatch.setattr(np, "empty", lambda *args: made.append(args) or empty(*args))
    for _ in range(20):  # one frame still read while the next is made
        held = [*held, pool.take()][-2:]
    assert len(made) == 2
