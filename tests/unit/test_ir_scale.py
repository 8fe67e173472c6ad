"""Size: 50,000 nodes without recursion or quadratic steps; gigabytes in little memory."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from onnx import TensorProto  # noqa: TID251 - a model file is made by hand

from onnxslim import ir

NODES = 50_000


def blocks(count: int) -> ir.Model:
    """Conv-Mul-Relu-Add blocks with residuals; one scalar that all share, a branch at the end."""
    model = ir.parse_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 4, 2, 2] x, bool c) => (float[1, 4, 2, 2] y) <float half = {0.5}> {
            y = If(c) <
                then_branch = t () => (float[1, 4, 2, 2] p) { p = Relu(x) },
                else_branch = e () => (float[1, 4, 2, 2] q) { q = Identity(x) }>
        }"""
    )
    graph, edge = model.graph, model.graph.inputs[0]
    half = graph.initializers["half"]
    kernel = np.zeros((4, 4, 1, 1), np.float32)
    made: list[ir.Node] = []
    for index in range(count // 4):
        weight = ir.Value(name=f"w{index}", shape=ir.Shape([4, 4, 1, 1]))
        weight.type = ir.TensorType(ir.DataType.FLOAT)
        weight.const_value = ir.make_tensor(kernel, f"w{index}")
        graph.initializers.add(weight)
        conv = ir.Node("", "Conv", [edge, weight], name=f"conv{index}")
        times = ir.Node("", "Mul", [conv.outputs[0], half], name=f"mul{index}")
        relu = ir.Node("", "Relu", [times.outputs[0]], name=f"relu{index}")
        add = ir.Node("", "Add", [relu.outputs[0], edge], name=f"add{index}")
        made += [conv, times, relu, add]
        edge = add.outputs[0]
    for number, node in enumerate(made):
        node.outputs[0].name = f"v{number}"
    last = graph[0]
    graph.insert_before(last, made)
    for branch in ir.subgraphs(last):
        branch[0].replace_input_with(0, edge)
    return model


def quantize_every_edge(model: ir.Model) -> int:
    """A pair of nodes on every value that some node reads, with constants of their own."""
    editor, count = ir.Editor(model), 0
    scale = editor.initializer(model.graph, "scale", np.array(0.1, np.float32))
    for node in list(model.graph):
        for value in node.outputs:
            if not value.uses():
                continue
            zero = editor.initializer(model.graph, "zero", np.array(0, np.uint8))
            q = editor.node("QuantizeLinear", [value, scale, zero], outputs=["q"])
            dq = editor.node("DequantizeLinear", [q.outputs[0], scale, zero], outputs=["dq"])
            editor.insert_on_edge(value, [q, dq], dq.outputs[0])
            count += 1
    return count


def core(folder: Path, count: int) -> ir.Model:
    """Build, save, load, walk, edit every edge, save again."""
    path = folder / f"{count}.onnx"
    ir.save(blocks(count), path)
    model = ir.load(path)
    assert sum(1 for _ in ir.nodes(model)) == count + 3
    assert quantize_every_edge(model) == count
    ir.save(model, path)
    return model


def rest(model: ir.Model, count: int) -> None:
    """Every other edit on every node, snapshots, removal of what is dead then."""
    editor = ir.Editor(model)
    muls = [node for node in model.graph if node.op_type == "Mul"]
    values = {id(editor.unshare(node, 1)) for node in muls}
    assert len(values) == count // 4
    for node in [n for n in model.graph if n.op_type == "Relu"]:
        new = editor.node("Abs", [node.inputs[0]], outputs=["abs"])
        editor.replace_node(node, [new], new.outputs)
    ir.restore(model, ir.snapshot(model))
    editor = ir.Editor(model)
    for node in [n for n in model.graph if n.op_type == "DequantizeLinear"]:
        quantize = node.inputs[0].producer() if node.inputs[0] is not None else None
        assert quantize is not None
        editor.replace_node(node, [], [quantize.inputs[0]])
    # Each QuantizeLinear with its zero point, and the scale.
    assert editor.remove_dead() == 2 * count + 1
    ir.verify(model)
    quarter = count // 4
    ops = {"Conv": quarter, "Mul": quarter, "Abs": quarter, "Add": quarter}
    found = Counter(node.op_type for node in ir.nodes(model))
    assert found == Counter(ops | {"If": 1, "Relu": 1, "Identity": 1})


@contextmanager
def small_stack() -> Generator[None, None, None]:
    """A stack that would not hold a recursion over the nodes."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(300)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def test_fifty_thousand_nodes(tmp_path: Path) -> None:
    with small_stack():
        core(tmp_path, NODES)


@pytest.mark.slow
def test_every_edit_of_fifty_thousand_nodes(tmp_path: Path) -> None:
    with small_stack():
        rest(core(tmp_path, NODES), NODES)


def everything(folder: Path, count: int) -> None:
    """All edits."""
    rest(core(folder, count), count)


def _calls(work: Callable[[], object]) -> int:
    """How many Python functions the work calls: what it costs, without a clock."""
    count = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_the_number_of_steps_is_linear(tmp_path: Path) -> None:
    """Calls of functions grow as the nodes do, from 4 over 100 to 400, within 1 %."""
    small, large = (_calls(partial(everything, tmp_path, count)) for count in (100, 400))
    start = _calls(partial(everything, tmp_path, 4))
    assert (large - start) / (small - start) == pytest.approx((400 - 4) / (100 - 4), rel=0.01)


BIG = """
import sys, threading, time
from pathlib import Path
import numpy as np
from onnxslim import ir

def anonymous():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024

peak, done = [0.0], threading.Event()

def watch():
    while not done.wait(0.002):
        peak[0] = max(peak[0], anonymous())

folder, count = Path(sys.argv[1]), int(sys.argv[2])
start = anonymous()
threading.Thread(target=watch, daemon=True).start()
begin = time.perf_counter()
model = ir.load(folder / "big.onnx")
loaded = time.perf_counter()
editor = ir.Editor(model)
weight = model.graph.initializers["w1"]
editor.replace_initializer(weight, np.full((4096, 4096), 2, np.float32))
ir.verify(model)
ir.snapshot(model)
saving = time.perf_counter()
ir.save(model, folder / sys.argv[3])
saved = time.perf_counter()
peak[0] = max(peak[0], anonymous())
done.set()
again = ir.load(folder / sys.argv[3])
assert ir.array(again.graph.initializers["w1"])[5, 5] == 2
assert ir.array(again.graph.initializers[f"w{count - 1}"])[5, 5] == 0
assert (folder / (sys.argv[3] + ".data")).stat().st_size >= count * 4096 * 4096 * 4
print(f"peak {peak[0]:.1f} MB, before {start:.1f} MB, load {loaded - begin:.2f} s, "
      f"save {saved - saving:.2f} s")
"""


def sparse_model(folder: Path, count: int) -> None:
    """A chain of MatMuls 4096 x 4096 whose data file is a hole: no disk, no time."""
    location = folder / "big.onnx.data"
    size = 4096 * 4096 * 4
    with location.open("wb") as file:
        file.truncate(count * size)
    text = "".join(f"v{i + 1} = MatMul(v{i}, w{i})\n" for i in range(count))
    inputs = ", ".join(f"float[4096, 4096] w{i}" for i in range(count))
    model = ir.to_proto(
        ir.parse_text(
            f"""<ir_version: 8, opset_import: ["" : 17]>
            g (float[N, 4096] v0, {inputs}) => (float[N, 4096] v{count}) {{ {text} }}"""
        )
    )
    del model.graph.input[1:]
    for index in range(count):
        tensor = model.graph.initializer.add(name=f"w{index}", data_type=1, dims=[4096, 4096])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location.name)
        tensor.external_data.add(key="offset", value=str(index * size))
        tensor.external_data.add(key="length", value=str(size))
    (folder / "big.onnx").write_bytes(model.SerializeToString())


def memory_of_one_edit(folder: Path, count: int, target: str) -> tuple[float, str]:
    """Peak of anonymous memory in MB of load, replace one weight (64 MB), save, in a process."""
    sparse_model(folder, count)
    run = subprocess.run(
        [sys.executable, "-c", BIG, str(folder), str(count), target],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(run.stdout.split()[1]), run.stdout


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("target", ["out.onnx", "big.onnx"])
def test_one_edit_of_a_big_model_takes_the_memory_of_one_weight(
    tmp_path: Path, target: str
) -> None:
    """400 MB of weights: were they read or copied, the limit of 150 MB would not hold."""
    peak, text = memory_of_one_edit(tmp_path, 6, target)
    assert peak <= 150, text


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_one_edit_of_a_model_of_three_gigabytes(tmp_path: Path) -> None:
    peak, text = memory_of_one_edit(tmp_path, 48, "out.onnx")
    print(text)
    assert peak <= 150, text
