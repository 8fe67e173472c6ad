"""Files that appear whole or not at all: written beside their place, synced, then renamed."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from onnxslim.errors import OutputError
from onnxslim.leftovers import hold, let_go, remove_unplaced

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than the file system or the limits allow",
    errno.EACCES: "it is not writable",
    errno.EPERM: "it is not writable",
    errno.EROFS: "the file system is read-only",
    errno.ENAMETOOLONG: "the name is too long",
}


@contextmanager
def output_errors(path: Path, so_far: str = "nothing was changed") -> Generator[None, None, None]:
    """Turn the system's errors into one line about the output and what was written before it."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise OutputError(f"{path}: cannot be written: {reason}; {so_far}") from error


def check_target(path: Path) -> None:
    """Refuse early what cannot become a file.

    Raises:
        OutputError: the folder is missing or no folder, or the path is a folder, a device or
            write-protected.
    """
    with output_errors(path):
        _check_target(path, path.absolute().parent)


def _check_target(path: Path, folder: Path) -> None:
    if not folder.exists():
        raise OutputError(f"{path}: the folder '{folder}' does not exist; make it first")
    if not folder.is_dir():
        raise OutputError(f"{path}: '{folder}' is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: the folder '{folder}' is not writable")
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; expected the name of a file")
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise OutputError(f"{path}: is not a regular file")
    if path.exists() and not os.access(path, os.W_OK):
        raise OutputError(f"{path}: is write-protected")


class Staging:
    """Temporary files in the folder of the output. What was not placed is removed at the end, or by
    the next that writes the same where this process is killed before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: set[Path] = set()
        self._held: list[int | None] = []

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, *_: object) -> None:
        for path in self._made:
            with suppress(OSError):
                path.unlink()
        for handle in self._held:
            let_go(handle)

    def fresh(self, stem: str, ending: str) -> Path:
        """A path that no file has; a file that is still there at the end is removed."""
        remove_unplaced(self.folder, stem, ending)
        path = self.unused(stem, ending)
        self._made.add(path)
        return path

    def unused(self, stem: str, ending: str) -> Path:
        """A path that no file has."""
        return self.folder / f"{stem}.{secrets.token_hex(4)}{ending}"

    def identity(self, path: Path) -> tuple[int, int] | None:
        """What tells a file from the one that replaced it; None where there is no file."""
        try:
            info = path.lstat()
        except FileNotFoundError:
            return None
        return info.st_dev, info.st_ino

    @contextmanager
    def writing(self, path: Path) -> Generator[BinaryIO, None, None]:
        """A new file, on disk when the block ends."""
        file, held = created(path)
        self._held.append(held)
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())

    def place(self, made: Path, target: Path) -> None:
        """Rename, in one step, over what is there; the permissions of an old file are kept."""
        with suppress(FileNotFoundError):
            made.chmod(stat.S_IMODE(target.stat().st_mode))
        os.replace(made, target)
        self._made.discard(made)
        sync_folder(self.folder)


@contextmanager
def replacing(path: Path) -> Generator[BinaryIO, None, None]:
    """A new file that takes the path, over what is there, when the block ends well. It is not
    synced: for what can be made anew."""
    with Staging(path.parent) as staging:
        made = staging.fresh(f".{path.name}", ".tmp")
        file, held = created(made)
        try:
            with file:
                yield file
            os.replace(made, path)
        finally:
            let_go(held)


def created(path: Path) -> tuple[BinaryIO, int | None]:
    """A new file, and the handle that keeps it from being taken for one that was left."""
    while True:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        held = hold(path)
        if path.exists():
            return os.fdopen(handle, "wb"), held
        os.close(handle)
        let_go(held)


def sync_folder(folder: Path) -> None:
    """Make renames in the folder durable, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
