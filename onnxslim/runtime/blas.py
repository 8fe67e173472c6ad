"""Products of matrices on one thread each, where several are made at a time.

NumPy's and SciPy's BLAS each start as many threads as there are cores for every large product,
and those wait for one another actively: several at a time cost more of the processor than one
after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from threading import Lock
from typing import Any, TypeVar

_lock = Lock()
_inside = 0  # how many callers there are: the limit is the whole process's, the last one lifts it
_limit: Any = None

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(executor: Executor, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`executor.map`, with one thread for every product of matrices inside."""
    with one_thread():
        yield from executor.map(function, items)


def longest_first(
    executor: Executor, function: Callable[[T], R], items: Iterable[T], work: Callable[[T], float]
) -> list[R]:
    """The same, and what is most work is begun first: none is left over for one thread at the end.
    Results come in the order of the items. A single one has all threads for its products."""
    given = list(items)
    if len(given) == 1:
        return [function(given[0])]
    order = sorted(range(len(given)), key=lambda i: -work(given[i]))
    found = dict(
        zip(order, side_by_side(executor, lambda i: function(given[i]), order), strict=True)
    )
    return [found[i] for i in range(len(given))]


@contextmanager
def one_thread() -> Generator[None]:
    """Every product takes one thread, in all of the process, until the last caller has left."""
    from threadpoolctl import ThreadpoolController

    global _inside, _limit
    with _lock:
        if not _inside:
            _limit = ThreadpoolController().limit(limits=1, user_api="blas")
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _limit.restore_original_limits()
