"""Functions of the user's own code, named as `module:function`."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from onnxslim.errors import DataError

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_function_name(text: str) -> bool:
    """Whether a text has the form `module:function`."""
    return _FUNCTION.fullmatch(text) is not None


def import_function(text: str) -> Callable[..., Any]:
    """The function that `module:function` names; modules of the working directory are found.

    Raises DataError when the module cannot be imported or has no such function.
    """
    module_name, _, name = text.partition(":")
    folder = os.getcwd()
    added = folder not in sys.path
    if added:
        sys.path.append(folder)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise DataError(
            f"{text}: the module '{module_name}' cannot be imported: {described(error)}"
        ) from error
    finally:
        if added:
            sys.path.remove(folder)
    function: Callable[..., Any] | None = getattr(module, name, None)
    if not callable(function):
        raise DataError(f"{text}: the module '{module_name}' has no function '{name}'")
    return function


def described(error: BaseException) -> str:
    """An exception of foreign code on one line: its type and message."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
