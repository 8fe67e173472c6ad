"""Products of matrices take one thread while several are made side by side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import pytest
import scipy.linalg as la
from threadpoolctl import threadpool_info, threadpool_limits

from onnxslim.runtime.blas import one_thread, side_by_side


def counts() -> set[int]:
    """Threads of the libraries that multiply matrices."""
    assert la is not None  # SciPy brings one of its own
    entries = cast("list[dict[str, Any]]", threadpool_info())
    return {entry["num_threads"] for entry in entries if entry["user_api"] == "blas"}


def test_every_library_takes_one_thread_until_the_last_caller_has_left() -> None:
    with threadpool_limits(2, "blas"):
        with one_thread():
            with one_thread():
                assert counts() == {1}
            assert counts() == {1}
        assert counts() == {2}


def test_callers_may_leave_in_any_order() -> None:
    with threadpool_limits(2, "blas"):
        first, second = one_thread(), one_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert counts() == {1}
        second.__exit__(None, None, None)
        assert counts() == {2}


def test_results_come_in_order_and_the_threads_come_back_after_a_failure() -> None:
    def inverse(number: int) -> tuple[float, set[int]]:
        return 1 / number, counts()

    with threadpool_limits(2, "blas"), ThreadPoolExecutor(2) as executor:
        found = list(side_by_side(executor, inverse, [1, 2, 4]))
        assert found == [(1, {1}), (0.5, {1}), (0.25, {1})]
        with pytest.raises(ZeroDivisionError):
            list(side_by_side(executor, inverse, [1, 0]))
        assert counts() == {2}


def test_the_installed_libraries_give_the_same_products_with_one_thread() -> None:
    matrix = np.random.default_rng(0).normal(size=(300, 300))
    wanted = matrix @ matrix
    with one_thread():
        found = matrix @ matrix
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-10)
