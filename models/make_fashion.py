"""Train a net on Fashion-MNIST and write it as ONNX, or write the data that goes with it.

    python models/make_fashion.py vgg|resnet|vit [--epochs N] [--seed S]
    python models/make_fashion.py data
    python models/make_fashion.py test-npz OUT.npz

The nets need torch, onnx and onnxruntime; the data needs NumPy alone. The test images are
scored once, after the last epoch; with --held-out N the last N training images are kept out
of the training and scored after each epoch instead, and nothing is written.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np  # noqa: E402

from models.fashion_data import DEFAULT_DIR, load_pixels, load_split  # noqa: E402
from models.fashion_record import record  # noqa: E402

HERE = Path(__file__).resolve().parent
NETS = ("vgg", "resnet", "vit")
CALIBRATION = 512
EVALUATION = 2000


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("what", choices=[*NETS, "data", "test-npz"])
    parser.add_argument("target", nargs="?", type=Path, help="the file that test-npz writes")
    parser.add_argument("--data", type=Path, default=DEFAULT_DIR, help="folder of the .gz files")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to")
    parser.add_argument("--epochs", type=int, help="default: the recipe of the net")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", type=int, default=0, metavar="N")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--checkpoint", type=Path, help="saved after each epoch; resumed if there")
    options = parser.parse_args(argv)
    if (options.what == "test-npz") != (options.target is not None):
        parser.error("test-npz, and only test-npz, takes the name of a file to write")
    if options.epochs is not None and options.epochs < 1:
        parser.error(f"--epochs is {options.epochs}, expected 1 or more")
    return options


def make_data(data: Path, out: Path, seed: int) -> None:
    """Write the calibration images (training set) and the evaluation images (test set)."""
    random = np.random.default_rng(seed)
    images, labels = load_split("train", data)
    chosen = np.sort(random.permutation(len(labels))[:CALIBRATION])
    np.savez_compressed(out / "fashion_calib.npz", input=images[chosen])
    images, labels = load_split("test", data)
    chosen = np.sort(random.permutation(len(labels))[:EVALUATION])
    np.savez_compressed(out / "fashion_eval.npz", input=images[chosen], labels=labels[chosen])
    entry = {
        "name": "Fashion-MNIST",
        "source": "Debian package dataset-fashion-mnist (zalandoresearch/fashion-mnist)",
        "licence": "MIT",
        "seed": seed,
    }
    for name in ("fashion_calib.npz", "fashion_eval.npz"):
        key = name.removesuffix(".npz").removeprefix("fashion_")
        entry[f"{key}_file"] = name
        entry[f"{key}_sha256"] = hashlib.sha256((out / name).read_bytes()).hexdigest()
    record(out / "fashion.toml", "data", entry)


def make_net(options: argparse.Namespace) -> None:
    """Train one net, export it, score the ONNX on the test images and record it."""
    import torch

    from models.fashion_export import describe, export, top1
    from models.fashion_nets import build
    from models.fashion_train import RECIPES, train

    name: str = options.what
    recipe = RECIPES[name]
    if options.epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=options.epochs)
    torch.manual_seed(options.seed)
    net = build(name)
    pixels, labels = load_pixels("train", options.data)
    data = torch.from_numpy(pixels.copy()), torch.from_numpy(labels)
    bf16 = options.precision == "bf16"
    train(net, recipe, data, options.held_out, bf16, options.checkpoint)
    if options.held_out:
        return
    path = options.out / f"fashion_{name}.onnx"
    export(net, path)
    score = top1(path, *load_split("test", options.data))
    entry = {"file": path.name, **describe(path), "top1": score}
    run = {"seed": options.seed, "epochs": recipe.epochs, "precision": options.precision}
    record(options.out / "fashion.toml", name, entry | run | {"torch": torch.__version__})
    print(f"{path}: top1 {score:.4f}, {entry['parameters']} parameters", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line asks."""
    options = parse(argv)
    if options.what == "data":
        make_data(options.data, options.out, options.seed)
    elif options.what == "test-npz":
        images, labels = load_split("test", options.data)
        np.savez_compressed(options.target, input=images, labels=labels)
    else:
        make_net(options)


if __name__ == "__main__":
    main()
