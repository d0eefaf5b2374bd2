"""Small fits keep to one thread, large ones do not, and the process has its threads back afterwards."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import probes
import probes.threads
from probes.solver import Design
from probes.threads import SMALL, one_thread


def threads() -> set[int]:
    return {about["num_threads"] for about in threadpool_info() if about["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def two_threads() -> Any:
    probes.threads._controller()
    with threadpool_limits(2, "blas"):
        if threads() != {2}:
            pytest.skip("this BLAS cannot be given two threads")
        yield


def test_the_threads_are_one_inside_and_as_before_afterwards_even_after_an_error() -> None:
    with one_thread(SMALL):
        assert threads() == {1}
    assert threads() == {2}
    with one_thread(SMALL + 1):
        assert threads() == {2}
    with pytest.raises(ZeroDivisionError), one_thread(0):
        _ = 1 / 0
    assert threads() == {2}


def test_fits_that_overlap_in_several_threads_leave_the_number_as_it_was() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with one_thread(0):
            entered.set()
            leave.wait(20)

    thread = threading.Thread(target=other)
    with one_thread(0):
        thread.start()
        assert entered.wait(20) and threads() == {1}
    leave.set()
    thread.join()
    assert threads() == {2}


def test_the_many_small_products_of_a_fit_are_made_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[int]] = []
    solve = probes.solver._solve
    monkeypatch.setattr(probes.solver, "_solve", lambda *given: (seen.append(threads()), solve(*given))[1])
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 8)), np.arange(30) % 2 == 0
    Design(x).scores(y[None], (0.1, 1.0), x)
    assert seen and set.union(*seen) == {1} and threads() == {2}


def test_the_scores_do_not_depend_on_the_number_of_threads() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(300, 200)), rng.random(300) < 0.5
    with threadpool_limits(1, "blas"):
        one = Design(x).scores(y[None], (0.1, 1.0), x)
    np.testing.assert_array_equal(Design(x).scores(y[None], (0.1, 1.0), x), one)
