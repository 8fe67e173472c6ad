"""Work that is begun early comes out in the order it was given in."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from onnxslim.runtime.ahead import ahead
from onnxslim.runtime.blas import longest_first


def test_the_next_item_is_made_while_one_is_in_use() -> None:
    begun = Event()

    def items() -> Iterator[int]:
        yield 1
        begun.set()
        yield 2

    for item in ahead(items()):
        if item == 1:
            assert begun.wait(10)
    assert list(ahead(items())) == [1, 2]
    assert list(ahead(list[int]())) == []


def test_an_error_reaches_the_one_who_asks() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("the second")

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(ValueError, match="the second"):
        next(found)


def test_the_longest_is_begun_first_and_order_stays() -> None:
    begun: list[int] = []

    def double(item: int) -> int:
        begun.append(item)
        return 2 * item

    with ThreadPoolExecutor(1) as executor:
        assert longest_first(executor, double, [1, 3, 2], float) == [2, 6, 4]
    assert begun == [3, 2, 1]
