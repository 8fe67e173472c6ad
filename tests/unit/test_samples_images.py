"""Folders of images, and the text that says how a model was trained to see them."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnxslim.errors import DataError
from onnxslim.runtime.data import load_samples
from onnxslim.runtime.images import Preprocess
from onnxslim.runtime.types import TensorInfo

F32 = np.dtype(np.float32)
PIXELS = TensorInfo("pixels", F32, ("N", 3, 4, 4))


def _image(path: Path, color: tuple[int, ...], size: tuple[int, int] = (8, 4)) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def test_text_gives_every_field() -> None:
    text = "size=256 crop=224,192 mean=0.5,0.25,0.125 std=2 scale=1/255 layout=nhwc color=bgr"
    assert Preprocess.parse(text) == Preprocess(
        size=(256,),
        crop=(224, 192),
        mean=(0.5, 0.25, 0.125),
        std=(2.0,),
        scale=1 / 255,
        layout="nhwc",
        color="bgr",
    )
    assert Preprocess.parse("") == Preprocess()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zoom=3", "'zoom=3': expected key=value with a key of size, crop, mean, std, scale"),
        ("size", "'size': expected key=value"),
        ("size=1 size=2", "'size=2': given twice"),
        ("size=big", "'size=big': invalid literal"),
        ("size=0", "'size=0': expected one or two positive whole numbers"),
        ("crop=1,2,3", "expected one or two positive whole numbers"),
        ("mean=1,2", "'mean=1,2': expected one number, or one for each of three channels"),
        ("std=1,0,1", "'std=1,0,1': expected numbers other than 0"),
        ("scale=1/0", "'scale=1/0'"),
        ("layout=hwc", "'layout=hwc': expected one of nchw, nhwc"),
    ],
)
def test_text_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Preprocess.parse(text)


def test_scaled_shifted_and_divided_per_channel(tmp_path: Path) -> None:
    path = _image(tmp_path / "a.png", (10, 20, 30))
    how = Preprocess.parse("mean=1,2,3 std=1,2,4 scale=1/10")
    array = how(path)
    assert array.shape == (1, 3, 4, 8)
    assert array.dtype == np.float32
    assert np.allclose(array[0, :, 0, 0], [(1 - 1) / 1, (2 - 2) / 2, (3 - 3) / 4], atol=1e-6)
    plain = Preprocess.parse("scale=1 layout=nhwc color=bgr")(path)
    assert plain.shape == (1, 4, 8, 3)
    assert plain[0, 0, 0].tolist() == [30, 20, 10]
    assert Preprocess.parse("color=gray")(path).shape == (1, 1, 4, 8)


def test_resized_by_the_short_side_and_cropped_from_the_centre(tmp_path: Path) -> None:
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 2:6] = 255  # the middle half is white
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert Preprocess.parse("size=2")(tmp_path / "a.png").shape == (1, 3, 2, 4)
    assert Preprocess.parse("size=6,5")(tmp_path / "a.png").shape == (1, 3, 6, 5)
    cropped = Preprocess.parse("crop=4")(tmp_path / "a.png")
    assert cropped.shape == (1, 3, 4, 4)
    assert cropped.min() == 1.0


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    for name, color in (("cat", 0), ("ant", 100), ("bee", 200)):
        _image(tmp_path / name / "1.png", (color,) * 3)
    (tmp_path / "bee" / "notes.txt").write_text("no image")
    samples = load_samples(tmp_path, [PIXELS], "crop=4 scale=1")
    assert [feed["pixels"][0, 0, 0, 0] for feed in samples] == [100, 200, 0]
    assert samples.labels is not None
    assert [int(label) for label in samples.labels] == [0, 1, 2]


def test_sub_folders_of_numbers_are_those_classes(tmp_path: Path) -> None:
    for name in ("10", "9"):
        _image(tmp_path / name / "1.png", (int(name),) * 3)
    samples = load_samples(tmp_path, [PIXELS], "crop=4 scale=1")
    assert samples.labels is not None
    fed = [feed["pixels"][0, 0, 0, 0] for feed in samples]
    assert fed == [int(label) for label in samples.labels] == [10, 9]


def test_a_fixed_batch_is_filled(tmp_path: Path) -> None:
    for i in range(5):
        _image(tmp_path / f"{i}.png", (i,) * 3)
    info = TensorInfo("pixels", F32, (2, 3, 4, 4))
    samples = load_samples(tmp_path, [info], "crop=4 scale=1")
    assert samples.labels is None
    assert [feed["pixels"][:, 0, 0, 0].tolist() for feed in samples] == [[0, 1], [2, 3]]


def test_integer_inputs_get_whole_numbers(tmp_path: Path) -> None:
    _image(tmp_path / "a.png", (7, 8, 9))
    info = TensorInfo("pixels", np.dtype(np.uint8), ("N", 3, 4, 8))
    fed = load_samples(tmp_path, [info], "scale=1")[0]["pixels"]
    assert fed.dtype == np.uint8
    assert fed[0, :, 0, 0].tolist() == [7, 8, 9]


@pytest.mark.parametrize(
    ("inputs", "how", "message"),
    [
        ([PIXELS], None, "1 images; say how the model was trained to see them with --preprocess"),
        ([PIXELS], "scale=1", r"dimension 3 is 8 in \[1, 3, 4, 8\]; the model takes 4"),
        ([PIXELS], "crop=5", r"a\.png: 4x8 pixels are fewer than crop=5,5; give a size"),
        ([PIXELS], "color=gray mean=1,2,3", r"3 values of mean or std for 1 channel"),
        ([PIXELS, PIXELS], "crop=4", "feeds a model with one input, this one has"),
        ([TensorInfo("x", F32, (2, 3, 4, 4))], "crop=4", "1 images; the model takes batches of 2"),
    ],
)
def test_images_that_do_not_fit(
    tmp_path: Path, inputs: list[TensorInfo], how: str | None, message: str
) -> None:
    _image(tmp_path / "a.png", (1, 2, 3))
    with pytest.raises(DataError, match=message):
        load_samples(tmp_path, inputs, how)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG nothing more")
    with pytest.raises(DataError, match=r"a\.png: not a readable image"):
        load_samples(tmp_path, [PIXELS], "crop=4")


def test_images_of_one_batch_must_have_one_size(tmp_path: Path) -> None:
    _image(tmp_path / "a.png", (1, 2, 3))
    _image(tmp_path / "b.png", (1, 2, 3), size=(4, 4))
    info = TensorInfo("x", F32, (2, 3, "H", "W"))
    with pytest.raises(DataError, match="images of one batch differ in size"):
        load_samples(tmp_path, [info], "scale=1")


def test_pillow_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _image(tmp_path / "a.png", (1, 2, 3))
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "PIL":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"pip install 'onnxslim-compiler\[images\]'"):
        load_samples(tmp_path, [PIXELS], "crop=4")
