"""The training loop: augmentation, one-cycle schedule, a checkpoint after each epoch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.fashion_data import MEAN, STD

__all__ = ["RECIPES", "Recipe", "augment", "optimiser", "to_input", "train"]


@dataclass(frozen=True)
class Recipe:
    """How one net is trained; ``peak`` is the highest learning rate of the one-cycle schedule.

    To save time, the epochs from ``coarse[0]`` up to, not including, ``coarse[1]`` see the
    images shrunk to 20 x 20.
    """

    epochs: int
    peak: float
    decay: float
    adam: bool = False
    cutout: int = 8
    batch: int = 128
    smoothing: float = 0.05
    shift: int = 2
    coarse: tuple[int, int] = (0, 0)


RECIPES = {
    "vgg": Recipe(epochs=14, peak=0.1, decay=5e-4, coarse=(2, 9)),
    "resnet": Recipe(epochs=10, peak=0.1, decay=5e-4, cutout=0, coarse=(0, 5)),
    "vit": Recipe(epochs=12, peak=2e-3, decay=0.05, adam=True, cutout=0, shift=1),
}


def to_input(pixels: Tensor) -> Tensor:
    """Normalised float32 [n,1,28,28] from uint8 [n,28,28]; the twin of ``normalise``."""
    return ((pixels.float() / 255 - MEAN) / STD).unsqueeze(1)


def augment(pixels: Tensor, shift: int, cutout: int) -> Tensor:
    """A random shift and flip of each image; half of the images lose one square to zero."""
    n, size = pixels.shape[0], pixels.shape[-1]
    padded = F.pad(pixels, (shift,) * 4)
    steps = torch.arange(size)
    rows = steps + torch.randint(0, 2 * shift + 1, (n, 1))
    columns = steps + torch.randint(0, 2 * shift + 1, (n, 1))
    flipped = torch.rand(n, 1) < 0.5
    columns = torch.where(flipped, columns.flip(1), columns)
    moved = padded[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    if not cutout:
        return moved
    near_row = (steps - torch.randint(0, size, (n, 1))).abs() < cutout // 2
    near_column = (steps - torch.randint(0, size, (n, 1))).abs() < cutout // 2
    hole = near_row[:, :, None] & near_column[:, None, :] & (torch.rand(n, 1, 1) < 0.5)
    return moved.masked_fill(hole, 0)


def optimiser(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum or AdamW; vectors (biases, norms) are not decayed."""
    weights = [p for p in net.parameters() if p.ndim > 1]
    vectors = [p for p in net.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": recipe.decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    if recipe.adam:
        return torch.optim.AdamW(groups, lr=recipe.peak)
    return torch.optim.SGD(groups, lr=recipe.peak, momentum=0.9, nesterov=True)


def accuracy(net: nn.Module, pixels: Tensor, labels: Tensor) -> float:
    """Top-1 share in evaluation mode."""
    net.eval()
    with torch.no_grad():
        hits = [
            (net(to_input(x)).argmax(1) == y).sum()
            for x, y in zip(pixels.split(500), labels.split(500), strict=True)
        ]
    return int(torch.stack(hits).sum()) / len(labels)


def train(
    net: nn.Module,
    recipe: Recipe,
    data: tuple[Tensor, Tensor],
    held_out: int = 0,
    bf16: bool = True,
    checkpoint: Path | None = None,
) -> None:
    """Train ``net`` in place on uint8 pixels and labels.

    The last ``held_out`` images are kept from the training and scored after each epoch. An
    existing ``checkpoint`` is resumed; the random stream is not part of it.
    """
    pixels, labels = data
    count = len(labels) - held_out
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = count // recipe.batch
    optim = optimiser(net, recipe)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optim, recipe.peak, total_steps=steps * recipe.epochs, pct_start=0.2, cycle_momentum=False
    )
    first = 0
    if checkpoint is not None and checkpoint.exists():
        state = torch.load(checkpoint)
        net.load_state_dict(state["net"])
        optim.load_state_dict(state["optim"])
        schedule.load_state_dict(state["schedule"])
        first = state["epoch"]
    for epoch in range(first, recipe.epochs):
        start = time.perf_counter()
        net.train()
        loss_sum = torch.zeros(())
        hits = torch.zeros((), dtype=torch.int64)
        for chosen in torch.randperm(count)[: steps * recipe.batch].split(recipe.batch):
            x = to_input(augment(pixels[chosen], recipe.shift, recipe.cutout))
            if recipe.coarse[0] <= epoch < recipe.coarse[1]:
                x = F.interpolate(x, size=20, mode="bilinear", antialias=True)
            x, y = x.contiguous(memory_format=torch.channels_last), labels[chosen]
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits = net(x)
            loss = F.cross_entropy(logits.float(), y, label_smoothing=recipe.smoothing)
            optim.zero_grad()
            loss.backward()
            if recipe.adam:
                nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optim.step()
            schedule.step()
            loss_sum += loss.detach()
            hits += (logits.argmax(1) == y).sum()
        line = f"epoch {epoch + 1}/{recipe.epochs} loss {loss_sum.item() / steps:.4f}"
        line += f" train {hits.item() / (steps * recipe.batch):.4f}"
        if held_out:
            line += f" held-out {accuracy(net, pixels[count:], labels[count:]):.4f}"
        print(f"{line} {time.perf_counter() - start:.0f} s", flush=True)
        if checkpoint is not None:
            state = {"net": net.state_dict(), "optim": optim.state_dict(), "epoch": epoch + 1}
            torch.save(state | {"schedule": schedule.state_dict()}, checkpoint)
