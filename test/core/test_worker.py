"""The worker under slow, failing and stopping work."""

from __future__ import annotations

import threading
import time

import pytest

from ddfd_ros.core.errors import InferenceError
from ddfd_ros.core.worker import LatestWorker


class Owned:
    """Notes on which threads it lives."""

    def __init__(self):
        self.threads = [threading.current_thread()]
        self.closed = 0

    def use(self):
        self.threads.append(threading.current_thread())

    def close(self):
        self.use()
        self.closed += 1


class Bench:
    """A worker whose process waits for a gate, and everything it reported."""

    def __init__(self, create=Owned, **options):
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Semaphore(0)
        self.results, self.errors = [], []
        self.owned = None

        def make():
            self.owned = create()
            return self.owned

        def process(owned, job):
            owned.use()
            self.begun.release()
            assert self.gate.wait(10)
            if isinstance(job, Exception):
                raise job
            return job * 10

        self.worker = LatestWorker(
            make,
            process,
            lambda job, answer: self.results.append((job, answer)),
            lambda job, error: self.errors.append((job, error)),
            **options,
        )


@pytest.fixture
def bench():
    made = Bench()
    made.worker.start(5)
    yield made
    made.gate.set()
    assert made.worker.stop(5)


def test_newest_wins_and_everything_is_counted(bench):
    bench.gate.clear()
    bench.worker.submit(1)
    assert bench.begun.acquire(timeout=5)  # 1 is being worked on
    assert all(bench.worker.submit(job) for job in (2, 3, 4))
    bench.gate.set()
    assert bench.worker.wait_idle(5)
    assert bench.results == [(1, 10), (4, 40)]
    counts = bench.worker.counts
    assert (counts.offered, counts.answered, counts.replaced, counts.failed) == (4, 2, 2, 0)


def test_one_thread_creates_uses_and_closes(bench):
    bench.worker.submit(1)
    bench.worker.call(lambda owned: owned.use(), 5)
    assert bench.worker.wait_idle(5)
    assert bench.worker.stop(5)
    threads = set(bench.owned.threads)
    assert len(bench.owned.threads) == 4
    assert len(threads) == 1
    assert threading.current_thread() not in threads
    assert bench.owned.closed == 1


def test_an_exception_is_reported_and_the_worker_lives_on(bench):
    error = ValueError("bad frame")
    bench.worker.submit(error)
    assert bench.worker.wait_idle(5)
    bench.worker.submit(2)
    assert bench.worker.wait_idle(5)
    assert bench.errors == [(error, error)]
    assert bench.results == [(2, 20)]
    assert (bench.worker.counts.failed, bench.worker.counts.answered) == (1, 1)


def test_failing_callbacks_do_not_end_it():
    def fail(*_):
        raise RuntimeError("callback")

    worker = LatestWorker(Owned, lambda owned, job: job, fail, fail)
    worker.start(5)
    for _ in range(2):
        worker.submit(1)
        assert worker.wait_idle(5)
    assert worker.counts.failed == 2
    assert worker.alive
    assert worker.stop(5)


def test_creation_error_reaches_start():
    def create():
        raise FileNotFoundError("no model")

    bench = Bench(create)
    with pytest.raises(FileNotFoundError, match="no model"):
        bench.worker.start(5)
    assert not bench.worker.submit(1)
    assert bench.worker.stop(5)
    with pytest.raises(InferenceError, match="second start"):
        bench.worker.start()


def test_slow_creation_times_out_and_is_closed_later():
    release = threading.Event()

    def create():
        release.wait(10)
        return Owned()

    bench = Bench(create)
    with pytest.raises(InferenceError, match=r"within 0.05 s"):
        bench.worker.start(0.05)
    release.set()
    assert bench.worker.stop(5)
    assert bench.owned.closed == 1


def test_stop_drops_what_waits_and_refuses_what_comes(bench):
    bench.gate.clear()
    bench.worker.submit(1)
    assert bench.begun.acquire(timeout=5)
    bench.worker.submit(2)
    assert not bench.worker.stop(0.01)  # 1 is still being worked on
    assert not bench.worker.submit(3)
    bench.gate.set()
    assert bench.worker.stop(5)
    assert not bench.worker.submit(4)
    assert bench.results == [(1, 10)]
    counts = bench.worker.counts
    assert (counts.offered, counts.answered, counts.refused) == (4, 1, 3)


def test_call_returns_raises_and_goes_first(bench):
    assert bench.worker.call(lambda owned: 7, 5) == 7
    with pytest.raises(KeyError, match="inside"):
        bench.worker.call(lambda owned: {}["inside"], 5)
    with pytest.raises(TimeoutError, match="its own"):
        bench.worker.call(lambda owned: (_ for _ in ()).throw(TimeoutError("its own")), 5)
    assert bench.worker.alive


def test_call_times_out_and_never_runs_then(bench):
    ran = []
    bench.gate.clear()
    bench.worker.submit(1)
    assert bench.begun.acquire(timeout=5)
    with pytest.raises(InferenceError, match=r"within 0.05 s"):
        bench.worker.call(lambda owned: ran.append(1), 0.05)
    bench.gate.set()
    assert bench.worker.wait_idle(5)
    assert ran == []


def test_call_and_stop(bench):
    bench.gate.clear()
    bench.worker.submit(1)
    assert bench.begun.acquire(timeout=5)
    caught = []

    def caller():
        try:
            bench.worker.call(lambda owned: None, 5)
        except InferenceError as error:
            caught.append(str(error))

    thread = threading.Thread(target=caller)
    thread.start()
    while not bench.worker._calls:
        time.sleep(0.001)
    bench.worker.stop(0.01)
    thread.join(5)
    assert caught == ["worker call: expected an answer, got stop()"]
    bench.gate.set()
    assert bench.worker.stop(5)
    with pytest.raises(InferenceError, match="stopped one"):
        bench.worker.call(lambda owned: None, 5)


def test_call_from_the_workers_own_thread_is_refused_not_deadlocked(bench):
    with pytest.raises(InferenceError, match="own"):
        bench.worker.call(lambda owned: bench.worker.call(lambda o: None), 5)


def test_stop_from_the_workers_own_thread_ends_it(bench):
    assert bench.worker.call(lambda owned: bench.worker.stop(), 5) is False
    assert bench.worker.stop(5)
    assert bench.owned.closed == 1


def test_old_frames_expire(bench):
    bench.gate.clear()
    bench.worker.submit(1)
    assert bench.begun.acquire(timeout=5)
    bench.worker.max_age_s = 0.02  # only now: on a busy machine the first may take as long
    bench.worker.submit(2)
    time.sleep(0.05)
    bench.gate.set()
    assert bench.worker.wait_idle(5)
    assert bench.results == [(1, 10)]
    assert bench.worker.counts.expired == 1
    bench.worker.max_age_s = 10.0
    bench.worker.submit(3)
    assert bench.worker.wait_idle(5)
    assert bench.results[-1] == (3, 30)


def test_close_error_is_reported():
    class Sticky(Owned):
        def close(self):
            raise OSError("busy")

    bench = Bench(Sticky)
    bench.worker.start(5)
    assert bench.worker.stop(5)
    assert [(job, str(error)) for job, error in bench.errors] == [(None, "busy")]


def test_many_threads_offer_and_the_balance_holds(bench):
    def offer():
        for job in range(200):
            bench.worker.submit(job)

    threads = [threading.Thread(target=offer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bench.worker.wait_idle(5)
    counts = bench.worker.counts
    assert counts.offered == 800
    assert counts.answered == len(bench.results) > 0
    assert counts.answered + counts.replaced == 800


def test_submit_never_waits_for_the_work(bench):
    bench.gate.clear()
    bench.worker.submit(1)
    assert bench.begun.acquire(timeout=5)
    start = time.perf_counter()
    for job in range(100):
        bench.worker.submit(job)
    assert time.perf_counter() - start < 1.0  # the work itself would wait forever
