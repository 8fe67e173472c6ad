"""Speech by espeak-ng, from the shared library of a pinned package; nothing is installed.

The library keeps one state per process, so there is one speaker at a time.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from models.catalog import ModelError
from models.packages import Archive

Array = NDArray[Any]
RATE = 16_000  # samples per second of what `say` gives
LIBRARY = "espeakng_loader/libespeak-ng.so"
DATA = "espeakng_loader/espeak-ng-data/"
_SYNCHRONOUS_RETRIEVAL = 2  # speak_lib.h: espeak_Synth returns when all samples were delivered
_UTF8 = 1
_SPEED, _PITCH = 1, 3  # speak_lib.h: espeak_PARAMETER
_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


@dataclass(frozen=True)
class Voice:
    """A language with a variant ("en-gb+f2"), words per minute and a pitch from 0 to 99."""

    name: str
    speed: int
    pitch: int


class Speaker:
    """Says texts; `folder` keeps the unpacked library for as long as this lives.

    Raises ModelError where the library does not load, as on another system than Linux on x86-64.
    """

    def __init__(self, archive: Archive, folder: Path) -> None:
        for member in archive.names():
            if member == LIBRARY or (member.startswith(DATA) and not member.endswith("/")):
                path = folder / member
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.read(member))
        try:
            self._library: Any = ctypes.CDLL(str(folder / LIBRARY))
        except OSError as error:
            raise ModelError(f"espeak-ng's library does not load here: {error}") from error
        data = str((folder / DATA).parent).encode()
        self._rate = int(self._library.espeak_Initialize(_SYNCHRONOUS_RETRIEVAL, 0, data, 0))
        if self._rate <= 0:
            raise ModelError("espeak-ng did not find its data; remove the package and fetch again")
        self._parts: list[Array] = []
        self._callback = _Callback(self._take)
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples: Any, count: int, _events: Any) -> int:
        if count > 0:
            self._parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, text: str, voice: Voice) -> Array:
        """The samples of a text [n] float64, in units of 16-bit integers, at RATE."""
        if self._library.espeak_SetVoiceByName(voice.name.encode()):
            raise ModelError(f"espeak-ng has no voice {voice.name!r}")
        self._library.espeak_SetParameter(_SPEED, voice.speed, 0)
        self._library.espeak_SetParameter(_PITCH, voice.pitch, 0)
        self._parts = []
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(0))  # a breath is drawn at random
        content = text.encode()
        self._library.espeak_Synth(content, len(content) + 1, 0, 1, 0, _UTF8, None, None)
        spoken = np.concatenate(self._parts).astype(np.float64)
        return np.asarray(signal.resample_poly(spoken, RATE, self._rate))
