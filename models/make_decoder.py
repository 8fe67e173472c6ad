"""Train a small language model on the text at hand and write it as ONNX, with its samples.

    python models/make_decoder.py [--steps N] [--seed S] [--out FOLDER] [--cache DIR]

Writes decoder.onnx, decoder_calib.npz, decoder_eval.npz and decoder.toml. Needs torch and what
`models/fetch.py` needs. Articles for evaluation are read once, after the last step; neither the
tokens nor the weights are chosen by them.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402

from models.catalog import recipes  # noqa: E402
from models.decoder_text import splits  # noqa: E402
from models.fashion_record import toml_line  # noqa: E402
from models.llama import Llama, LlamaBuilder  # noqa: E402
from models.metrics import next_token_log_probability, perplexity  # noqa: E402
from models.packages import Store  # noqa: E402
from models.samples import Array, save_stacked  # noqa: E402
from models.scoring import labelled, run  # noqa: E402
from models.zoo import default_cache  # noqa: E402

HERE = Path(__file__).resolve().parent
SIZES = Llama(
    "decoder",
    layers=4,
    width=192,
    heads=6,
    kv_heads=2,
    inner=512,
    vocabulary=1024,
    rope_base=10000.0,
    positions=512,
)
CALIBRATION = (64, 128)
EVALUATION = (32, 256)
"""Windows and their length."""


def tokenizer(text: str) -> Tokenizer:
    """A byte-level BPE of SIZES.vocabulary tokens, trained on the training text."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZES.vocabulary, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(text.splitlines(), trainer)
    return made


def windows(ids: Array, shape: tuple[int, int]) -> Array:
    """Windows [count,length] of the stream of tokens, evenly spaced, which do not overlap."""
    count, length = shape
    step = len(ids) // count
    assert step >= length
    return np.stack([ids[start : start + length] for start in range(0, count * step, step)])


def state_of(net: Any) -> dict[str, Array]:
    """The weights under the names that the ONNX builder reads."""
    return {name: tensor.detach().numpy() for name, tensor in net.state_dict().items()}


def make(options: argparse.Namespace) -> None:
    """Train, export, score and record."""
    import onnx
    import torch

    from models.decoder_net import Decoder, Recipe, train

    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    store = Store((options.cache or default_cache()) / "packages")
    texts = splits(store.open(recipes()["smollm2_135m"].data[0]))
    tokens = tokenizer(texts[0])
    ids = [np.array(tokens.encode(text).ids, np.int64) for text in texts]
    recipe = dataclasses.replace(Recipe(), **({"steps": options.steps} if options.steps else {}))
    net = Decoder(SIZES)
    train(net, recipe, torch.from_numpy(ids[0]))

    out: Path = options.out
    path, evaluation = out / "decoder.onnx", out / "decoder_eval.npz"
    onnx.save(LlamaBuilder(SIZES, state_of(net)).network(), path)
    save_stacked(out / "decoder_calib.npz", input_ids=windows(ids[1], CALIBRATION))
    held_out = windows(ids[2], EVALUATION)
    save_stacked(evaluation, input_ids=held_out, labels=held_out)
    feeds, labels = labelled(evaluation)
    outputs = run(path, feeds, 1)
    entry = {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "bytes": path.stat().st_size,
        "parameters": sum(p.numel() for p in net.parameters()),
        "characters": len(texts[0]),
        "next_token_log_probability": round(next_token_log_probability(outputs, labels), 4),
        "perplexity": round(perplexity(outputs, labels), 3),
        "seed": options.seed,
        "steps": recipe.steps,
        "torch": torch.__version__,
    }
    lines = [HEADER, *(toml_line(key, value) for key, value in entry.items()), ""]
    (out / "decoder.toml").write_text("\n".join(lines), encoding="utf-8")
    print(f"{path}: perplexity {entry['perplexity']}, {entry['parameters']} parameters", flush=True)


HEADER = "# Written by models/make_decoder.py; perplexity is that of the held-out articles."


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--steps", type=int, help="default: the recipe of the net")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to")
    parser.add_argument("--cache", type=Path, help="where models/fetch.py keeps packages")
    options = parser.parse_args(argv)
    if options.steps is not None and options.steps < 1:
        parser.error(f"--steps is {options.steps}, expected 1 or more")
    make(options)


if __name__ == "__main__":
    main()
