"""Products of matrices on one thread each, where several are made at a time.

NumPy's and SciPy's OpenBLAS each start as many threads as there are cores for every large product,
and those wait for one another actively: several at a time cost more of the processor than one
after the other. The wheels of both bring their library along; other builds are left as they are.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

_PREFIXES = ("scipy_openblas", "openblas")
_SUFFIXES = ("64_", "")
_inside, _lock = 0, Lock()  # how many callers there are: the libraries are the whole process's
_before: list[int] = []

Control = tuple[Callable[[], int], Callable[[int], Any]]
"""What gets and what sets the number of threads of a library."""

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(executor: Executor, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`executor.map`, with one thread for every product of matrices inside."""
    with one_thread():
        yield from executor.map(function, items)


@contextmanager
def one_thread() -> Generator[None]:
    """Every product takes one thread, in all of the process, until the last caller has left."""
    global _inside
    with _lock:
        _inside += 1
        if _inside == 1:
            _before[:] = [get() for get, _ in _controls()]
            for _, put in _controls():
                put(1)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                for (_, put), count in zip(_controls(), _before, strict=True):
                    put(count)


@cache
def _controls() -> list[Control]:
    """Of each library that there is."""
    found: list[Control] = []
    for package in ("numpy", "scipy"):
        spec = find_spec(package)
        root = Path(spec.origin or "").parent if spec is not None else Path()
        for folder in (root.with_name(f"{package}.libs"), root / ".dylibs"):
            for path in sorted(folder.glob("*openblas*")):
                found += _of(path)
    return found


def _of(path: Path) -> Iterator[Control]:
    with suppress(OSError):
        library = ctypes.CDLL(str(path))
        for prefix in _PREFIXES:
            for suffix in _SUFFIXES:
                with suppress(AttributeError):
                    get = getattr(library, f"{prefix}_get_num_threads{suffix}")
                    yield get, getattr(library, f"{prefix}_set_num_threads{suffix}")
