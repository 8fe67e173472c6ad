"""The manifest, the readers of packages and the sample files, without any network."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models import data_magika, data_music, data_wakeword
from models.catalog import ModelError, Package, recipe, recipes, resolve
from models.packages import Store, TarArchive, wheel_tags
from models.samples import read_samples, save_folder, save_stacked
from models.torch_pickle import MAGIC, load_state_dict


def test_every_recipe_is_pinned_and_its_metric_exists() -> None:
    for entry in recipes().values():
        assert all(len(package.sha256) == 64 for package in entry.packages)
        assert callable(resolve(entry.metric))
        assert entry.tolerance > 0


def test_an_unknown_model_is_refused_with_the_known_names() -> None:
    with pytest.raises(ModelError, match=r"'resnet'; known are efficientnet_lite0, "):
        recipe("resnet")


def test_the_digest_changes_with_what_is_made_and_not_with_the_score() -> None:
    entry = recipe("magika")
    assert replace(entry, revision=99).digest != entry.digest
    assert replace(entry, score=0.5).digest == entry.digest


def testwheel_tags_name_the_very_wheel() -> None:
    assert wheel_tags("a-1-py3-none-any.whl") == []
    tags = wheel_tags("a-1-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl")
    assert tags[-4:] == [
        "--platform",
        "manylinux_2_24_x86_64",
        "--platform",
        "manylinux_2_28_x86_64",
    ]


def wheel(folder: Path, sha256: str) -> Package:
    with zipfile.ZipFile(folder / "a-1-py3-none-any.whl", "w") as content:
        content.writestr(zipfile.ZipInfo("a/data.txt"), "hello")
    return Package("a", "pypi", "a", "1", "a-1-py3-none-any.whl", sha256, "MIT")


def test_a_file_with_another_sha256_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"manifest\.toml pins 0000"):
        Store(tmp_path).open(wheel(tmp_path, "0" * 64))


def test_stacked_samples_come_back_one_by_one(tmp_path: Path) -> None:
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    save_stacked(tmp_path / "eval.npz", x=x, labels=np.array([4, 5, 6]))
    samples = list(read_samples(tmp_path / "eval.npz"))
    assert [feeds["x"].tolist() for feeds, _ in samples] == [[[0, 1]], [[2, 3]], [[4, 5]]]
    assert [int(label) for _, label in samples if label is not None] == [4, 5, 6]


def test_stacked_arrays_of_unequal_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one length"):
        save_stacked(tmp_path / "eval.npz", x=np.zeros(3), labels=np.zeros(2))


def test_a_folder_keeps_each_samples_own_shape(tmp_path: Path) -> None:
    save_folder(tmp_path / "calib", ({"x": np.zeros((1, width))} for width in (5, 3)))
    samples = list(read_samples(tmp_path / "calib"))
    assert [feeds["x"].shape for feeds, _ in samples] == [(1, 5), (1, 3)]
    assert [label for _, label in samples] == [None, None]


def test_a_checkpoint_that_calls_anything_else_is_refused() -> None:
    parts: list[object] = [MAGIC, 1001, {}, Path("x"), []]
    content = b"".join(pickle.dumps(part, 2) for part in parts)
    with pytest.raises(pickle.UnpicklingError, match="no business with pathlib"):
        load_state_dict(content)
    with pytest.raises(pickle.UnpicklingError, match="not a PyTorch checkpoint"):
        load_state_dict(pickle.dumps(1, 2))


def test_magika_features_strip_and_pad() -> None:
    numbers = data_magika.features(b"  ab c\n")
    assert numbers[:7].tolist() == [*b"ab c\n", 256, 256]
    assert numbers[-7:].tolist() == [256, *b"  ab c"]
    assert numbers.shape == (2048,)


def test_magika_features_keep_both_ends() -> None:
    content = b"a" * 5000 + b"b" * 5000
    assert set(data_magika.features(content)[:1024]) == set(b"a")
    assert set(data_magika.features(content)[1024:]) == set(b"b")


def test_a_template_is_no_clear_html() -> None:
    page = b"<html>" + b" " * 300
    assert data_magika.is_clear(".html", page)
    assert not data_magika.is_clear(".html", page + b"{% if x %}")
    assert not data_magika.is_clear(".html", b"<html>")


def test_archives_list_and_read(tmp_path: Path) -> None:
    content = (tmp_path / wheel(tmp_path, "").file).read_bytes()
    archive = Store(tmp_path).open(wheel(tmp_path, hashlib.sha256(content).hexdigest()))
    assert archive.names() == ["a/data.txt"]
    assert archive.read("a/data.txt") == b"hello"


def test_a_tar_lists_and_reads_below_its_prefix() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        entry = tarfile.TarInfo("./a/data.txt")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"hello"))
        folder = tarfile.TarInfo("./b")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    found = TarArchive(packed.getvalue(), "./")
    assert found.names() == ["a/data.txt"]
    assert found.read("a/data.txt") == b"hello"
    with pytest.raises(ModelError, match="b is not a plain file"):
        found.read("b")


def test_an_npm_package_without_npm_says_where_to_put_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    package = replace(recipe("openwakeword").package, file="absent.tgz")
    with pytest.raises(ModelError, match=r"no npm here.*put absent\.tgz"):
        Store(tmp_path).path(package)


def test_music_is_heard_where_the_label_says() -> None:
    samples, label = data_music.window(data_music.EVALUATION, np.random.default_rng(3))
    assert samples.shape == (data_music.LENGTH, 1)
    frames = samples[: data_music.FRAMES * data_music.HOP - data_music.HOP, 0]
    power = np.square(frames.reshape(-1, data_music.HOP)).mean(axis=1)
    sounding = label[: len(power)].any(axis=1)
    silent = ~(sounding | np.roll(sounding, 1) | np.roll(sounding, -1))  # a note may end inside
    assert sounding.any()
    assert silent.any()
    assert power[sounding].min() > 1000 * power[silent].max()


def test_both_sets_of_music_and_of_speech_differ() -> None:
    first, second = data_music.CALIBRATION, data_music.EVALUATION
    assert first.seed != second.seed
    calibration, evaluation = data_wakeword.CALIBRATION, data_wakeword.EVALUATION
    assert not set(calibration.variants) & set(evaluation.variants)
    assert not set(calibration.others) & set(evaluation.others)


def test_windows_of_a_spectrogram_overlap_by_all_but_the_step() -> None:
    mel = np.arange(92 * 32, dtype=np.float32).reshape(92, 32)
    found = data_wakeword.windows(mel)
    assert found.shape == (3, 76, 32, 1)
    np.testing.assert_array_equal(found[1, :, :, 0], mel[8:84])
