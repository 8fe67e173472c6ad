"""What kind of Python object a user has given, in a form that type checkers understand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np

from onnxslim.runtime.samples import Array


def is_mapping(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether it maps names to something."""
    return isinstance(value, Mapping)


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether it is a list or another sequence, other than text and arrays."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, np.ndarray))


def is_array(value: object) -> TypeGuard[Array]:
    """Whether it is a numpy array."""
    return isinstance(value, np.ndarray)


def is_iterable(value: object) -> TypeGuard[Iterable[Any]]:
    """Whether it can be gone through."""
    return isinstance(value, Iterable)


def is_pair(value: object) -> TypeGuard[tuple[Any, Any]]:
    """Whether it is a tuple of two."""
    return is_list(value) and len(value) == 2 and isinstance(value, tuple)
