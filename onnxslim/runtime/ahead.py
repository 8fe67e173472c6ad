"""What comes next is made while what is there is worked on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items; each is made in a thread while the one before it is in use."""
    source, no_more = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, source, no_more)
        while (item := coming.result()) is not no_more:
            coming = pool.submit(next, source, no_more)
            yield item  # type: ignore[misc]  # what `no_more` is not
            del item
