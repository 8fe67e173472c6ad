"""What a run writes is none of what it reads, and nothing is written twice."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from re import fullmatch

from onnxslim.config import Request
from onnxslim.errors import ConfigError
from onnxslim.ir.files import check_target


def check_files(source: Path, output: Path, request: Request) -> None:
    """Refuse early what cannot be written, or would be written over what the run reads.

    Only the output may be the input.

    Raises:
        OutputError: the output or the report cannot become a file.
        ConfigError: one file is given for two purposes, or a folder cannot be one.
    """
    check_target(output)
    _check_apart(output, str(output), _read(request))
    if (report := request.report) is not None:
        check_target(report)
        what = f"--report {report}"
        _check_apart(report, what, [("the input", source), *_read(request), ("the output", output)])
    if request.dump is not None and fullmatch(r"\d\d-[\w-]+\.onnx", source.name):  # as Dump does
        what = f"--dump {request.dump}"
        _check_apart(request.dump / source.name, what, [("the folder of the input", source)])


def check_data(data: Iterable[Path], output: Path, request: Request) -> None:
    """Refuse to write over the files that the weights of the input are in; raises ConfigError."""
    used = [("external data of the input", path) for path in data]
    _check_apart(output, str(output), used)
    if request.report is not None:
        _check_apart(request.report, f"--report {request.report}", used)


def check_folders(request: Request) -> None:
    """Refuse early folders that cannot be written into; raises ConfigError."""
    for flag, folder in (("--cache", request.cache), ("--dump", request.dump)):
        if folder is not None:
            _check_folder(f"{flag} {folder}", folder.absolute())


def _read(request: Request) -> Iterator[tuple[str, Path]]:
    for flag, given in (("--calib", request.calib), ("--eval", request.eval)):
        if isinstance(given, str | Path):
            yield flag, Path(given)


def _check_apart(path: Path, what: str, others: Iterable[tuple[str, Path]]) -> None:
    for use, other in others:
        if _same(path, other):
            raise ConfigError(f"{what}: is {use} too; give another name")


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return one.resolve() == other.resolve()


def _check_folder(what: str, folder: Path) -> None:
    """The folder, or the nearest above it that there is, is a folder and writable."""
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise ConfigError(f"{what}: '{there}' is not a folder; give the name of one")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{what}: the folder '{there}' is not writable")
