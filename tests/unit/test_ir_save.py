"""Saving: whole or not at all, the old output valid until the new one is, nothing left behind."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.errors import ModelError, OutputError
from onnxslim.ir import write
from onnxslim.ir.files import Staging
from onnxslim.ir.tensors import write_data


def chain(seed: int = 0, count: int = 2) -> ir.Model:
    """A chain of MatMuls with weights of 16 KB each, and a small bias."""
    rng = np.random.default_rng(seed)
    model = ir.parse_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[64, 64] x) => (float[64, 64] y) <float b = {1}> { y = Add(x, b) }"""
    )
    editor = ir.Editor(model)
    edge = model.graph.inputs[0]
    for _ in range(count):
        weight = editor.initializer(
            model.graph, "w", rng.standard_normal((64, 64)).astype(np.float32)
        )
        node = editor.node("MatMul", [edge, weight], outputs=["h"])
        editor.insert_on_edge(edge, [node], node.outputs[0])
        edge = node.outputs[0]
    return model


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("external", [False, True])
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, external: bool) -> None:
    model = chain()
    ir.save(model, tmp_path / "m.onnx", external)
    names = ["m.onnx", "m.onnx.data"] if external else ["m.onnx"]
    assert sorted(contents(tmp_path)) == names
    again = ir.load(tmp_path / "m.onnx")
    assert ir.checksum(again) == ir.checksum(model)
    assert len(ir.external_tensors(again)) == (2 if external else 0)


@pytest.mark.parametrize("external", [False, True])
def test_saving_twice_gives_the_same_bytes(tmp_path: Path, external: bool) -> None:
    ir.save(chain(), tmp_path / "m.onnx", external)
    first = contents(tmp_path)
    ir.save(chain(), tmp_path / "m.onnx", external)
    assert contents(tmp_path) == first


def test_external_data_stay_external(tmp_path: Path) -> None:
    ir.save(chain(), tmp_path / "a.onnx", external=True)
    model = ir.load(tmp_path / "a.onnx")
    editor = ir.Editor(model)
    for name in ("w", "w_1"):  # nothing of the old file is used any more
        value = model.graph.initializers[name]
        editor.replace_initializer(value, np.ones((64, 64), np.float32))
    ir.save(model, tmp_path / "b.onnx")
    assert len(ir.external_tensors(ir.load(tmp_path / "b.onnx"))) == 2
    assert ir.checksum(ir.load(tmp_path / "b.onnx")) == ir.checksum(model)


def test_external_data_can_be_taken_in(tmp_path: Path) -> None:
    ir.save(chain(), tmp_path / "a.onnx", external=True)
    ir.save(ir.load(tmp_path / "a.onnx"), tmp_path / "b.onnx", external=False)
    (tmp_path / "a.onnx.data").unlink()
    assert ir.checksum(ir.load(tmp_path / "b.onnx")) == ir.checksum(chain())


def test_no_data_file_without_big_weights(tmp_path: Path) -> None:
    ir.save(chain(count=0), tmp_path / "m.onnx", external=True)
    assert sorted(contents(tmp_path)) == ["m.onnx"]


def test_a_weight_that_is_used_twice_is_written_once(tmp_path: Path) -> None:
    model = chain()
    tensor = model.graph.initializers["w"].const_value
    model.graph.initializers["w_1"].const_value = tensor
    ir.save(model, tmp_path / "m.onnx", external=True)
    assert (tmp_path / "m.onnx.data").stat().st_size == 64 * 64 * 4
    again = ir.load(tmp_path / "m.onnx").graph.initializers
    np.testing.assert_array_equal(ir.array(again["w"]), ir.array(again["w_1"]))


def test_over_its_own_input_with_external_data(tmp_path: Path) -> None:
    """The weight that did not change is read from the file that is being replaced."""
    path = tmp_path / "m.onnx"
    ir.save(chain(), path, external=True)
    model = ir.load(path)
    before = ir.array(chain().graph.initializers["w_1"])
    state = ir.snapshot(model)
    new = np.full((8, 8), 2, np.float32).repeat(64, axis=0)  # smaller: offsets move
    ir.Editor(model).replace_initializer(model.graph.initializers["w"], new[:64, :1])
    ir.save(model, path)
    assert sorted(contents(tmp_path)) == ["m.onnx", "m.onnx.data"]
    np.testing.assert_array_equal(ir.array(ir.load(path).graph.initializers["w_1"]), before)
    np.testing.assert_array_equal(ir.array(model.graph.initializers["w_1"]), before)
    with pytest.raises(ValueError, match="invalidated"):
        ir.array(state.graph.initializers["w_1"])


def test_another_output_never_touches_the_inputs_data(tmp_path: Path) -> None:
    """The input's data file has the name that the output's would get."""
    ir.save(chain(), tmp_path / "out.onnx", external=True)
    (tmp_path / "out.onnx").rename(tmp_path / "in.onnx")
    before = contents(tmp_path)
    model = ir.load(tmp_path / "in.onnx")
    ir.save(model, tmp_path / "out.onnx")
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert sorted(set(after) - set(before)) == ["out.onnx", "out.onnx.1.data"]
    assert ir.checksum(ir.load(tmp_path / "out.onnx")) == ir.checksum(model)


def test_permissions_of_an_old_file_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    ir.save(chain(), path)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    path.chmod(0o640)
    ir.save(chain(1), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    ir.save(chain(), tmp_path / "real.onnx")
    (tmp_path / "link.onnx").symlink_to(tmp_path / "real.onnx")
    before = (tmp_path / "real.onnx").read_bytes()
    ir.save(chain(1), tmp_path / "link.onnx")
    assert (tmp_path / "real.onnx").read_bytes() == before
    assert not (tmp_path / "link.onnx").is_symlink()


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ir.save(chain(), "m.onnx", external=True)
    assert ir.checksum(ir.load("m.onnx")) == ir.checksum(chain())


# Refusals


def test_bad_targets_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    cases = {
        tmp_path / "no" / "m.onnx": "does not exist; make it first",
        tmp_path / "file" / "m.onnx": "is not a folder|cannot be written",
        tmp_path: "is a folder; expected the name of a file",
        Path("/dev/null"): "is not a regular file",
        tmp_path / ("n" * 300): "the name is too long",
    }
    for path, message in cases.items():
        with pytest.raises(OutputError, match=message):
            ir.save(chain(), path)
    assert contents(tmp_path) == {"file": b"old"}


def test_a_folder_or_file_that_is_not_writable(tmp_path: Path) -> None:
    if os.access("/", os.W_OK):
        pytest.skip("this user may write everywhere")
    path = tmp_path / "m.onnx"
    path.touch(0o444)
    with pytest.raises(OutputError, match="write-protected"):
        ir.save(chain(), path)
    tmp_path.chmod(0o555)
    with pytest.raises(OutputError, match="not writable"):
        ir.save(chain(), tmp_path / "other.onnx")
    tmp_path.chmod(0o755)


def test_an_invalid_model_is_not_written(tmp_path: Path) -> None:
    model = chain()
    model.graph[0].replace_input_with(0, ir.Value(name="nowhere"))
    with pytest.raises(ModelError, match="'nowhere'"):
        ir.save(model, tmp_path / "m.onnx")
    assert contents(tmp_path) == {}


def test_a_model_that_is_too_large_for_a_proto() -> None:
    model = chain()
    huge = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1 << 15, 1 << 15), (0, 0))
    model.graph.initializers["w"].const_value = ir.Tensor(huge, name="w")
    with pytest.raises(ModelError, match=r"4.3 GB, a proto holds 2 GB; save the model to a path"):
        ir.to_proto(model)


# Failures half way: at every single step of the operating system's calls


STEPS = ("open", "write", "fsync", "replace", "chmod", "link", "unlink")


class Failing:
    """Makes the n-th call that changes files fail, counting over all kinds of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        self.left = -1
        self._error = error
        for module, name in (
            (os, "open"),
            (os, "fsync"),
            (os, "replace"),
            (os, "link"),
            (os, "fdopen"),
            (Path, "chmod"),
        ):
            monkeypatch.setattr(module, name, self._wrapped(getattr(module, name)))

    def _wrapped(self, function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            self.left -= 1
            if self.left == 0:
                raise self._error
            return function(*arguments, **options)

        return call


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "ctrl-c"]
)
@pytest.mark.parametrize("old", ["none", "plain", "pair"])
def test_a_failure_at_any_step_leaves_a_valid_output(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    external: bool,
    error: BaseException,
    old: str,
) -> None:
    """Old or new, never neither; no temporary file stays. Durability is a rename, then a sync."""
    path = tmp_path / "m.onnx"
    failing = Failing(monkeypatch, error)
    hashes = {ir.checksum(chain(0)), ir.checksum(chain(1))}
    step = 0
    while True:
        step += 1
        for name in contents(tmp_path):
            (tmp_path / name).unlink()
        if old != "none":
            ir.save(chain(0), path, external=old == "pair")
        before = sorted(contents(tmp_path))
        failing.left = step
        try:
            ir.save(chain(1), path, external)
        except (OutputError, KeyboardInterrupt):
            failing.left = -1
            after = sorted(contents(tmp_path))
            if old != "none" or "m.onnx" in after:
                assert ir.checksum(ir.load(path)) in hashes, f"step {step}: {after}"
            assert set(after) <= {*before, "m.onnx", "m.onnx.data"} or _is_spare(after), after
            continue
        finished = failing.left > 0  # the failure did not come any more, or was not needed
        failing.left = -1
        assert ir.checksum(ir.load(path)) == ir.checksum(chain(1))
        if finished:
            break
    assert step > 4


def _is_spare(names: list[str]) -> bool:
    """One data file more than needed, which the model at the path uses."""
    return not any(name.startswith(".") for name in names) and len(names) <= 3


@contextmanager
def file_size_limit(size: int) -> Generator[None, None, None]:
    """No file may grow beyond `size` bytes: what a full disk looks like, from the kernel."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("external", [False, True])
def test_a_disk_that_runs_full_keeps_the_old_output(tmp_path: Path, external: bool) -> None:
    path = tmp_path / "m.onnx"
    ir.save(chain(0), path, external)
    before = contents(tmp_path)
    with file_size_limit(20_000), pytest.raises(OutputError, match=r"nothing was changed"):
        ir.save(chain(1), path, external)
    assert contents(tmp_path) == before


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_ir_save as t
from onnxslim import ir
path = Path(sys.argv[1])
models = [t.chain(0, 40), t.chain(1, 40)]
print("ready", flush=True)
while True:
    for model in models:
        ir.save(model, path, external=True)
"""


def test_a_process_that_is_killed_leaves_a_valid_pair(tmp_path: Path) -> None:
    """SIGKILL at moments spread over many saves of the same pair of files."""
    path = tmp_path / "m.onnx"
    hashes = {ir.checksum(chain(0, 40)), ir.checksum(chain(1, 40))}
    for delay in (0.0, 0.013, 0.029, 0.047):
        arguments = [sys.executable, "-c", KILLED, str(path), str(Path(__file__).parent)]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.3 + delay)
        process.kill()
        process.wait()
        process.stdout.close()
        assert ir.checksum(ir.load(path)) in hashes


def test_a_big_constant_of_a_node_goes_out_and_comes_back(tmp_path: Path) -> None:
    """Read back by onnx-ir, and by ONNX Runtime, which has its own rules for such files."""
    path = tmp_path / "m.onnx"
    model = chain(count=1)
    node = next(node for node in model.graph if node.op_type == "MatMul")
    tensor = ir.constant(node.inputs[1])
    assert tensor is not None
    editor = ir.Editor(model)
    constant = editor.node("Constant", [], outputs=["k"], attributes={"value": tensor})
    editor.insert_before(node, [constant])
    editor.rewire([(node, 1)], constant.outputs[0])
    editor.remove_dead()
    expected = ir.checksum(model)
    ir.save(model, path, external=True)
    assert sorted(contents(tmp_path)) == ["m.onnx", "m.onnx.data"]
    again = ir.load(path)
    assert len(ir.external_tensors(again)) == 1
    assert ir.checksum(again) == expected
    x = np.eye(64, dtype=np.float32)
    runtime = import_module("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x})[0], tensor.numpy() + 1, rtol=1e-6)
    ir.save(again, path, external=False)
    (tmp_path / "m.onnx.data").unlink()
    assert ir.checksum(ir.load(path)) == expected


def test_a_weight_that_does_not_fit_tells_the_systems_reason() -> None:
    """numpy, which writes arrays, only counts the elements that went out."""
    weight = ir.Tensor(np.zeros(100_000, np.float32), name="w")
    with open("/dev/full", "wb", buffering=0) as file, pytest.raises(OSError) as caught:
        write_data(weight, file)
    assert caught.value.errno == errno.ENOSPC


def test_two_that_save_to_one_path_do_not_mix_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = write._place_model  # pyright: ignore[reportPrivateUsage]
    pauses = iter((0.2, 0.1))  # who is first with the data would be last with the model

    def slowly(data: bytes, target: Path, staging: Staging) -> None:
        time.sleep(next(pauses, 0))
        place(data, target, staging)

    monkeypatch.setattr(write, "_place_model", slowly)
    models = [chain(seed) for seed in range(3)]
    for seed, model in enumerate(models):
        model.producer_name = str(seed)
    with ThreadPoolExecutor(3) as pool:
        saves = [pool.submit(ir.save, model, tmp_path / "m.onnx", True) for model in models]
    assert [save.exception() for save in saves] == [None] * 3
    saved = ir.load(tmp_path / "m.onnx")
    wanted = models[int(saved.producer_name or 0)]
    weights = zip(ir.tensors(saved), ir.tensors(wanted), strict=True)
    assert all(np.array_equal(one.numpy(), other.numpy()) for one, other in weights)
    assert sorted(contents(tmp_path)) == ["m.onnx", "m.onnx.data"]
