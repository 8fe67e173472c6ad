"""How seconds and memory grow: chains of 1,000 to 50,000 nodes, and a model of three gigabytes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx  # noqa: TID251 - model files are made by hand

from tests.bench.compilers import watch
from tests.bench.simplify.compare import compare, reference
from tests.bench.simplify.store import Record, Store
from tests.bench.simplify.subjects import SEED, Subject
from tests.bench.simplify.tools import Tool

LENGTHS = (1_000, 10_000, 50_000)
_STEPS = """
s{i} = Shape(v{i})
n{i} = Gather<axis = 0>(s{i}, zero)
u{i} = Unsqueeze(n{i}, first)
c{i} = Concat<axis = 0>(u{i}, rest)
r{i} = Reshape(v{i}, c{i})
t{i} = Transpose<perm = [0, 1, 3, 2]>(r{i})
b{i} = Transpose<perm = [0, 1, 3, 2]>(t{i})
m{i} = MatMul(b{i}, weight)
a{i} = Add(m{i}, bias)
v{j} = Relu(a{i})
"""  # ten nodes, three of which are needed
WIDTH, LAYERS = 4096, 48  # 64 MB a layer


def chain(path: Path, length: int) -> Subject:
    """A chain whose blocks compute the shape that their input has, and transpose it twice."""
    blocks = length // 10
    steps = "".join(_STEPS.format(i=i, j=i + 1) for i in range(blocks))
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[batch, 3, 8, 8] input) => (float[batch, 3, 8, 8] v{blocks})
        <int64 zero = {{0}}, int64[1] first = {{0}}, int64[3] rest = {{3, 8, 8}}> {{
            v0 = Relu(input)
            {steps}
        }}"""
    )
    random = np.random.default_rng(SEED)
    for name, shape in (("weight", (8, 8)), ("bias", (8,))):
        value = random.standard_normal(shape, np.float32) / 2
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    onnx.save(model, path)
    return Subject(f"chain of {length:,}", path, size=8)


def big(path: Path) -> Subject:
    """MatMul, Identity and Relu in turn, with 3.2 GB of weights in a file beside the model."""
    steps = "".join(
        f"m{i} = MatMul(v{i}, w{i})\n c{i} = Identity(m{i})\n v{i + 1} = Relu(c{i})\n"
        for i in range(LAYERS)
    )
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[batch, 3, 64, 64] input) => (float[rows, {WIDTH}] v{LAYERS}) {{
            v0 = Flatten<axis = 2>(input)
            {steps}
        }}"""
    )
    random = np.random.default_rng(SEED)
    block = random.standard_normal((WIDTH, WIDTH), np.float32) / np.float32(WIDTH**0.5)
    data = Path(f"{path}.data")
    with data.open("wb") as file:
        for i in range(LAYERS):
            where = {"location": data.name, "offset": file.tell(), "length": block.nbytes}
            tensor = model.graph.initializer.add(name=f"w{i}", data_type=1, dims=block.shape)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in where.items():
                tensor.external_data.add(key=key, value=str(value))
            file.write((block * np.float32(1.3 + i / 1000)).tobytes())
    path.write_bytes(model.SerializeToString())
    return Subject("3.2 GB", path, size=64)


def measure(store: Store, tools: Sequence[Tool]) -> None:
    """Every tool once on each; what a tool did not survive is noted."""
    missing = [tool for tool in tools if not store.get("scale", tool.name, tool.version)]
    found: dict[str, Record] = {tool.name: {} for tool in missing}
    for length in (*LENGTHS, 0) if missing else ():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "in.onnx")
            subject = chain(path, length) if length else big(path)
            for tool in missing:
                record = _one(subject, tool)
                found[tool.name][subject.name] = record
                print(f"{subject.name}, {tool.name}: {record}", flush=True)
    for tool in missing:
        store.put("scale", tool.name, tool.version, found[tool.name])


def _one(subject: Subject, tool: Tool) -> Record:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.onnx")
        run = watch(tool.command(subject.path, out), out)
        record: Record = {"seconds": run.seconds, "peak_mb": run.peak_mb, "failure": run.failure}
        if not run.failure:
            compared = compare(subject, out, reference(subject))
            record.update(nodes=compared.nodes, difference=compared.difference)
            record["failure"] = compared.failure
        return record
