"""Arrays in a temporary file: they keep what is written, and say what they lack room for."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from onnxslim.analyses.spill import Spill


def test_arrays_keep_what_is_written_and_do_not_touch_each_other() -> None:
    spill = Spill()
    one, two = spill.zeros((3, 5), np.float64), spill.zeros((7,), np.float32)
    one()[1] = 4.0
    assert not two().any()
    two()[:] = 2.0
    assert one().sum() == 20.0
    assert two().sum() == 14.0


def test_an_array_outlives_the_spill() -> None:
    opened = Spill().zeros((4,), np.int64)
    opened()[2] = 9
    assert opened().tolist() == [0, 0, 9, 0]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room is not taken at once here")
def test_a_full_disk_is_said_with_what_is_needed_and_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"need 8 MB or more in .* set TMPDIR") as caught:
        Spill().zeros((1 << 20,), np.float64)
    assert caught.value.errno == errno.ENOSPC
