"""Products of matrices take one thread while several are made side by side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from onnxslim.runtime import blas
from onnxslim.runtime.blas import one_thread, side_by_side


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Two libraries that are told how many threads to take."""
    known = {"numpy": 4, "scipy": 3}

    def control(name: str) -> blas.Control:
        return (lambda: known[name]), (lambda count: known.__setitem__(name, count))

    monkeypatch.setattr(blas, "_controls", lambda: [control(name) for name in known])
    return known


def test_every_library_takes_one_thread_until_the_last_caller_has_left(
    counts: dict[str, int],
) -> None:
    with one_thread():
        with one_thread():
            assert counts == {"numpy": 1, "scipy": 1}
        assert counts == {"numpy": 1, "scipy": 1}
    assert counts == {"numpy": 4, "scipy": 3}


def test_results_come_in_order_and_the_threads_come_back_after_a_failure(
    counts: dict[str, int],
) -> None:
    def inverse(number: int) -> tuple[float, int]:
        return 1 / number, counts["scipy"]

    with ThreadPoolExecutor(2) as executor:
        assert list(side_by_side(executor, inverse, [1, 2, 4])) == [(1, 1), (0.5, 1), (0.25, 1)]
        with pytest.raises(ZeroDivisionError):
            list(side_by_side(executor, inverse, [1, 0]))
    assert counts == {"numpy": 4, "scipy": 3}


def test_the_installed_libraries_give_the_same_products_with_one_thread() -> None:
    matrix = np.random.default_rng(0).normal(size=(300, 300))
    wanted = matrix @ matrix
    with one_thread():
        found = matrix @ matrix
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-10)
