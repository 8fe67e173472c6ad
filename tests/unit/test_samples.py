"""Calibration and evaluation data: every source, and one clear line for each way not to fit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnxslim import environment, ir
from onnxslim.config import Request
from onnxslim.errors import DataError
from onnxslim.runtime.data import Checked, load_samples, split
from onnxslim.runtime.npz import MappedNpz
from onnxslim.runtime.samples import Array, FeedList, Samples
from onnxslim.runtime.types import TensorInfo

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)
X = TensorInfo("x", F32, ("N", 3))
IDS = TensorInfo("ids", I64, ("N", "S"))
MASK = TensorInfo("mask", I64, ("N", "S"), optional=True)
ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)
WORDS = np.arange(8).reshape(4, 2)


def _npz(path: Path, **arrays: Array) -> Path:
    np.savez(path, allow_pickle=False, **arrays)
    return path


def _labels(samples: Samples) -> list[Any]:
    assert samples.labels is not None
    return [label.tolist() for label in samples.labels]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_gives_one_row_per_sample(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "data.npz"
    save(path, x=ROWS, ids=WORDS, labels=np.array([3, 1, 4, 1]))
    samples = load_samples(path, [X, IDS])
    assert len(samples) == 4
    assert np.array_equal(samples[2]["x"], ROWS[2:3])
    assert samples[3]["ids"].tolist() == [[6, 7]]
    assert _labels(samples) == [3, 1, 4, 1]
    assert [feed["x"][0, 0] for feed in samples] == [0, 3, 6, 9]
    assert [feed["x"][0, 0] for feed in samples] == [0, 3, 6, 9]  # and once more


def test_npz_is_mapped_not_loaded(tmp_path: Path) -> None:
    turned = np.asfortranarray(ROWS)
    arrays = MappedNpz(_npz(tmp_path / "data.npz", x=ROWS, é=turned))
    assert all(isinstance(array, np.memmap) for array in arrays.values())
    assert np.array_equal(arrays["é"], turned)


def test_npz_of_another_rank_by_one_holds_whole_feeds(tmp_path: Path) -> None:
    state = TensorInfo("h", F32, (2, 1, 3))
    path = _npz(tmp_path / "data.npz", x=ROWS, h=np.ones((4, 2, 1, 3), np.float32))
    samples = load_samples(path, [X, state])
    assert samples[0]["h"].shape == (2, 1, 3)
    assert len(samples) == 4


def test_fixed_batch_groups_rows_and_labels(tmp_path: Path) -> None:
    batch = TensorInfo("x", F32, (2, 3))
    rows = np.concatenate([ROWS, ROWS[:1]])
    path = _npz(tmp_path / "data.npz", x=rows, labels=np.arange(5))
    samples = load_samples(path, [batch])
    assert len(samples) == 2  # the fifth row fills no batch
    assert np.array_equal(samples[1]["x"], ROWS[2:4])
    assert _labels(samples) == [[0, 1], [2, 3]]


def test_folder_of_npz_feeds_each_as_it_is(tmp_path: Path) -> None:
    for i, length in enumerate((2, 5, 3)):
        _npz(tmp_path / f"{i}.npz", ids=np.zeros((1, length), np.int64), labels=np.array([i]))
    samples = load_samples(str(tmp_path), [IDS])
    assert [feed["ids"].shape for feed in samples] == [(1, 2), (1, 5), (1, 3)]
    assert _labels(samples) == [[0], [1], [2]]


def _module(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (folder / "user_feeds.py").write_text("import numpy as np\n" + text)
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "user_feeds", raising=False)


def test_function_yields_feeds_and_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
def feeds():
    for i in range(3):
        yield {"x": np.full((1, 3), i, np.float32)}, i
"""
    _module(tmp_path, monkeypatch, text)
    before = list(sys.path)
    samples = load_samples("user_feeds:feeds", [X])
    assert [feed["x"][0, 0] for feed in samples] == [0, 1, 2]
    assert _labels(samples) == [0, 1, 2]
    assert sys.path == before


def test_function_may_give_stacked_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _module(tmp_path, monkeypatch, "def feeds():\n    return {'x': np.ones((5, 3), 'f4')}\n")
    assert len(load_samples("user_feeds:feeds", [X])) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def feeds():\n    raise KeyError('gone')\n", "user_feeds:feeds: the function failed: Ke"),
        ("import nothing_there\n", "cannot be imported: ModuleNotFoundError: No module named 'not"),
        ("feeds = 3\n", "the module 'user_feeds' has no function 'feeds'"),
        ("def feeds():\n    return 3\n", "a int; expected a mapping of arrays or an iterable"),
        ("def feeds():\n    yield [1]\n", "sample 0: a list; expected a dict"),
    ],
)
def test_what_is_wrong_with_a_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    _module(tmp_path, monkeypatch, text)
    with pytest.raises(DataError, match=message) as caught:
        load_samples("user_feeds:feeds", [X])
    assert "\n" not in str(caught.value)


def test_objects_are_samples_too() -> None:
    arrays = load_samples({"x": ROWS, "labels": np.arange(4)}, [X])
    feeds = load_samples([{"x": ROWS[i : i + 1], "labels": i} for i in range(4)], [X])
    other = load_samples(FeedList([{"x": ROWS}]), [X])
    assert [_labels(arrays), _labels(feeds)] == [[0, 1, 2, 3]] * 2
    assert np.array_equal(arrays[1]["x"], feeds[1]["x"])
    assert np.array_equal(other[0]["x"], ROWS)


def test_generator_is_read_once_and_can_be_gone_through_again() -> None:
    runs = 0

    def feeds() -> Iterator[Mapping[str, Array]]:
        nonlocal runs
        runs += 1
        yield {"x": ROWS}
        yield {"x": ROWS[:1]}

    samples = load_samples(feeds(), [X])
    assert [len(f["x"]) for f in samples] == [len(f["x"]) for f in samples] == [4, 1]
    assert runs == 1


def test_large_iterables_go_to_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("onnxslim.runtime.sources._IN_MEMORY", 100)
    many = load_samples(({"x": ROWS + i} for i in range(6)), [X])
    assert len(list(tmp_path.rglob("*.npz"))) == 3  # 48 bytes each: three fit
    assert [feed["x"][0, 0] for feed in many] == [0, 1, 2, 3, 4, 5]
    del many
    assert not list(tmp_path.iterdir())


def test_optional_inputs_may_be_given_or_not() -> None:
    assert list(load_samples({"ids": WORDS}, [IDS, MASK])[0]) == ["ids"]
    assert list(load_samples({"ids": WORDS, "mask": WORDS}, [IDS, MASK])[0]) == ["ids", "mask"]


def test_unknown_arrays_are_ignored_and_named() -> None:
    samples = load_samples({"x": ROWS, "y": ROWS}, [X])
    assert isinstance(samples, Checked)
    assert samples.ignored == ("y",)
    assert list(samples[0]) == ["x"]


def test_an_input_called_labels_is_an_input() -> None:
    labels = TensorInfo("labels", I64, ("N",))
    samples = load_samples({"labels": np.arange(4)}, [labels])
    assert samples[1]["labels"].tolist() == [1]
    assert samples.labels is None


BF16 = np.dtype(ml_dtypes.bfloat16)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (np.float64, np.float32),
        (np.float16, np.float32),
        (np.float32, np.float16),
        (np.float32, ml_dtypes.bfloat16),
        (np.int32, np.int64),
        (np.uint8, np.int64),
        (np.int64, np.uint8),
        (np.int64, ml_dtypes.int4),
    ],
)
def test_types_of_another_width_are_cast(given: type[Any], taken: type[Any]) -> None:
    info = TensorInfo("x", np.dtype(taken), ("N", 3))
    array: Array = np.array([[0, 1, 2], [3, 4, 5]], given)
    fed = load_samples({"x": array}, [info])[1]["x"]
    assert fed.dtype == taken
    assert fed.astype(np.float64).tolist() == [[3, 4, 5]]


def test_text_is_fed_as_objects() -> None:
    info = TensorInfo("t", np.dtype(object), ("N",))
    fed = load_samples({"t": np.array(["a", "bc"])}, [info])[1]["t"]
    assert fed.dtype == object
    assert fed.tolist() == ["bc"]


def test_sequences_are_lists() -> None:
    info = TensorInfo("q", F32, ("N",), sequence=True)
    fed: Any = load_samples([{"q": [np.ones(2), np.ones(3)]}], [info])[0]["q"]
    assert [part.dtype for part in fed] == [F32, F32]
    with pytest.raises(DataError, match="takes a sequence; give a list of arrays"):
        load_samples([{"q": np.ones(2)}], [info])


BAD: list[tuple[dict[str, Any], str]] = [
    ({"y": ROWS}, r"the samples: no array for the model's input 'x'; it has 'y'"),
    ({}, "no array for the model's input 'x'; it has none"),
    ({"x": ROWS[0]}, r"input 'x': an array of rank 1, \[1\]; the model takes rank 2, \[N, 3\]"),
    ({"x": np.float32(1)}, "a single number; stack the samples on axis 0"),
    ({"x": ROWS[:, :2]}, r"dimension 1 is 2 in \[1, 2\]; the model takes 3 there, \[N, 3\]"),
    ({"x": ROWS.astype(np.uint8)}, r"element type uint8; the model takes float32; convert"),
    ({"x": ROWS.astype(str)}, "element type <U32; the model takes float32"),
    ({"x": ROWS * np.nan}, r"sample 0: input 'x': holds NaN; calibration and evaluation need fin"),
    (
        {"x": ROWS + np.array([[0], [0], [np.inf], [0]], np.float32)},
        r"sample 2: input 'x': holds Inf",
    ),
    ({"x": np.full((2, 3), 1e300)}, "values too large for the model's type, float32"),
    ({"x": ROWS[:0]}, "no samples; give at least one"),
    ({"x": ROWS, "labels": np.arange(3)}, "3 labels for 4 samples; give one for each"),
    ({"x": ROWS, "labels": np.array(3)}, "0 labels for 4 samples"),
]


@pytest.mark.parametrize(("arrays", "message"), BAD)
def test_arrays_that_do_not_fit(arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_samples(arrays, [X])
    assert "\n" not in str(caught.value)


def test_arrays_of_different_length_do_not_fit() -> None:
    with pytest.raises(DataError, match="different numbers of samples: 'x' 4, 'ids' 3"):
        load_samples({"x": ROWS, "ids": WORDS[:3]}, [X, IDS])


@pytest.mark.parametrize(
    ("values", "taken"), [([-1, 0], np.uint8), ([2**63], np.int64), ([300, 0], np.uint8)]
)
def test_integers_out_of_range_do_not_fit(values: list[int], taken: type[Any]) -> None:
    info = TensorInfo("i", np.dtype(taken), ("N",))
    with pytest.raises(DataError, match="values out of the range of the model's type"):
        load_samples({"i": np.array(values)}, [info])


def test_fewer_rows_than_a_batch_do_not_fit() -> None:
    batch = TensorInfo("x", F32, (8, 3))
    with pytest.raises(DataError, match="4 rows; the model takes batches of 8"):
        load_samples({"x": ROWS}, [batch])


def test_labels_of_only_some_samples_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only some of the samples have a label"):
        load_samples([{"x": ROWS}, ({"x": ROWS}, 1)], [X])
    _npz(tmp_path / "0.npz", x=ROWS, labels=np.arange(4))
    _npz(tmp_path / "1.npz", x=ROWS)
    with pytest.raises(DataError, match=r"1\.npz: no labels, but other files"):
        load_samples(tmp_path, [X])


def test_samples_with_labels_of_another_length_do_not_fit() -> None:
    with pytest.raises(DataError, match="1 labels for 2 samples"):
        load_samples(FeedList([{"x": ROWS}] * 2, [np.array(1)]), [X])


def test_an_iterable_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxslim.runtime.sources._MOST", 10)
    with pytest.raises(DataError, match="more than 10 samples; let the iterable end earlier"):
        load_samples(({"x": ROWS} for _ in iter(int, 1)), [X])


def test_files_that_are_no_data(tmp_path: Path) -> None:
    def told(name: str | Path) -> str:
        with pytest.raises(DataError) as caught:
            load_samples(name, [X])
        return str(caught.value)

    assert "no such file; expected an .npz, a folder, or module:function" in told("gone.npz")
    (tmp_path / "text.csv").write_text("1,2")
    assert "expected an .npz, a folder" in told(tmp_path / "text.csv")
    (tmp_path / "bad.npz").write_text("not a zip")
    assert "bad.npz: not a readable .npz file" in told(tmp_path / "bad.npz")
    np.savez(tmp_path / "objects.npz", x=np.array([{}]))
    assert "it holds Python objects; save plain arrays" in told(tmp_path / "objects.npz")
    whole = _npz(tmp_path / "whole.npz", x=np.zeros((100, 3), np.float32)).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:600])
    assert "cut.npz: not a readable .npz file" in told(tmp_path / "cut.npz")
    (tmp_path / "empty").mkdir()
    assert "empty: holds no .npz files and no images" in told(tmp_path / "empty")


def test_split_has_no_common_sample_and_is_seeded() -> None:
    samples = load_samples({"x": np.arange(30, dtype="f4").reshape(10, 3)}, [X])
    calib, held = split(samples, 0.3, seed=1)
    first, second = ({float(f["x"][0, 0]) for f in part} for part in (calib, held))
    assert (len(first), len(second)) == (7, 3)
    assert not first & second
    again = [f["x"][0, 0] for f in split(samples, 0.3, seed=1)[1]]
    assert again == [f["x"][0, 0] for f in held]
    assert again != [f["x"][0, 0] for f in split(samples, 0.3, seed=2)[1]]


@pytest.mark.parametrize(("count", "held_out", "parts"), [(2, 0.01, (1, 1)), (3, 0.99, (1, 2))])
def test_split_leaves_both_parts_something(
    count: int, held_out: float, parts: tuple[int, int]
) -> None:
    samples = FeedList([{"x": ROWS}] * count, [np.array(i) for i in range(count)])
    calib, held = split(samples, held_out)
    assert (len(calib), len(held)) == parts
    assert calib.labels is not None
    assert len(calib.labels) == parts[0]


def test_one_sample_cannot_be_split() -> None:
    with pytest.raises(DataError, match=r"1 sample cannot be split .* separate ones with --eval"):
        split(FeedList([{"x": ROWS}]))


@pytest.mark.parametrize(("check", "sizes"), [(True, (3, 1)), (False, (4, None))])
def test_samples_are_held_out_for_a_check_only(
    tmp_path: Path, check: bool, sizes: tuple[int, int | None]
) -> None:
    model = ir.parse_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }"""
    )
    request = Request(calib=_npz(tmp_path / "data.npz", x=ROWS), check=check)
    calib, evaluation = environment.samples(model, request)
    assert calib is not None
    assert (len(calib), None if evaluation is None else len(evaluation)) == sizes
