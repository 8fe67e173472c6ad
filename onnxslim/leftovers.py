"""What a killed run left behind, told from what a running one uses.

A temporary file or folder is locked (`flock`) by the process that uses it, as long as it does; the
system lets the lock go however the process ends. So what can be locked is nobody's. Where there
are no such locks (Windows, some network file systems) nothing that was left is removed.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

SCRATCH = "onnxslim-run-"
"""Begins the name of every temporary folder; those with other names are never removed."""


def hold(path: Path) -> int | None:
    """A handle that keeps a file or folder of ours from `remove` until it is closed; None where
    the system has no such thing."""
    if sys.platform != "win32":
        with suppress(OSError):
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            fcntl.flock(handle, fcntl.LOCK_EX)
            return handle
    return None


def let_go(handle: int | None) -> None:
    """The end of `hold`."""
    if handle is not None:
        os.close(handle)


@contextmanager
def in_turn(path: Path) -> Generator[None, None, None]:
    """One process after the other. The path is that of a file for this alone, which is there only
    while somebody has his turn. Where the system has no such locks nobody waits.

    Raises OSError where the file cannot be made.
    """
    handle = _turn(path)
    try:
        yield
    finally:
        if handle is not None:
            path.unlink(missing_ok=True)  # before the lock goes: who waits sees that it is gone
            os.close(handle)


def _turn(path: Path) -> int | None:
    if sys.platform == "win32":
        return None
    while True:
        handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            os.close(handle)
            path.unlink(missing_ok=True)
            return None
        except BaseException:
            os.close(handle)
            raise
        if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            return handle
        os.close(handle)


def remove_scratch() -> None:
    """Remove the temporary folders of runs that were killed."""
    _remove(Path(tempfile.gettempdir()), f"{re.escape(SCRATCH)}.*")


def remove_unplaced(folder: Path, stem: str, ending: str) -> None:
    """Remove the files STEM.xxxxxxxxENDING of a folder, eight hexadecimal digits in the middle, of
    runs that were killed."""
    _remove(folder, rf"{re.escape(stem)}\.[0-9a-f]{{8}}{re.escape(ending)}")


def _remove(folder: Path, names: str) -> None:
    with suppress(OSError), os.scandir(folder) as entries:
        found = [Path(entry.path) for entry in entries if re.fullmatch(names, entry.name)]
        for path in found:
            with suppress(OSError):
                _remove_unheld(path)


def _remove_unheld(path: Path) -> None:
    """Remove what this user has made and nobody holds; raises OSError where somebody does."""
    if sys.platform == "win32" or path.lstat().st_uid != os.getuid():
        return
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    finally:
        os.close(handle)
