"""Adam, and of weights that are matrices the momentum made orthogonal (Muon).

Muon (Jordan et al. 2024) takes of a gradient's running mean G = U S V^T the step U V^T, which moves
all directions of a matrix alike; U V^T comes from five rounds of a Newton-Schulz iteration. Scaled
to the root mean square that Adam's steps have (Liu et al. 2025, "Muon is scalable for LLM
training", eq. 4), both go by one learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxslim.passes.distill.graph.api import Tensor, torch

_MOMENTUM = 0.95
RMS = 0.2  # of Adam's steps
_ROUNDS = 5
_FACTORS = (3.4445, -4.7750, 2.0315)  # a x + b x^3 + c x^5 draws all of (0, 1] near to 1
_LEAST = 1e-7


class Optimizer:
    """The leaves' next values from their gradients."""

    def __init__(self, leaves: Mapping[str, Tensor]) -> None:
        self._matrices = [leaf for leaf in leaves.values() if is_matrix(leaf)]
        held = {id(leaf) for leaf in self._matrices}
        self._leaves = list(leaves.values())
        self._means = [torch.zeros_like(leaf) for leaf in self._matrices]
        self._alike: dict[tuple[int, ...], list[int]] = {}
        for index, leaf in enumerate(self._matrices):
            self._alike.setdefault(tuple(leaf.flatten(1).shape), []).append(index)
        others = [leaf for leaf in self._leaves if id(leaf) not in held]
        self._adam = torch.optim.Adam(others, lr=0.0) if others else None

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for leaf in self._leaves:
            leaf.grad = None

    def step(self, rate: float) -> None:
        """Move the leaves that have a gradient."""
        if self._adam is not None:
            for group in self._adam.param_groups:
                group["lr"] = rate
            self._adam.step()
        with torch.no_grad():
            for shape, indices in self._alike.items():
                moved = [i for i in indices if self._matrices[i].grad is not None]
                if not moved:
                    continue
                steps = orthogonal(torch.stack([self._ahead(index) for index in moved]))
                for index, step in zip(moved, steps, strict=True):
                    leaf = self._matrices[index]
                    leaf.add_(step.reshape(leaf.shape), alpha=-rate * RMS * max(shape) ** 0.5)

    def _ahead(self, index: int) -> Tensor:
        """The running mean with this gradient, and a step ahead of it (Nesterov), as a matrix."""
        gradient, mean = self._matrices[index].grad, self._means[index]
        mean.lerp_(gradient, 1 - _MOMENTUM)
        return torch.lerp(gradient, mean, _MOMENTUM).flatten(1)

    def state(self) -> dict[str, Any]:
        """All that the next step depends on but the leaves."""
        adam = {} if self._adam is None else self._adam.state_dict()
        return {"adam": adam, "means": [mean.cpu() for mean in self._means]}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state."""
        if self._adam is not None:
            self._adam.load_state_dict(state["adam"])
        for mean, saved in zip(self._means, state["means"], strict=True):
            mean.copy_(saved)


def is_matrix(leaf: Tensor) -> bool:
    """Whether a leaf maps several features to several: no bias, and no filters of one channel."""
    shape: tuple[int, ...] = tuple(leaf.shape)
    return len(shape) >= 2 and min(shape[:2]) > 1


def orthogonal(stack: Tensor) -> Tensor:
    """About U V^T of each U S V^T in [n, rows, columns]."""
    wide = stack.shape[1] <= stack.shape[2]
    x = stack if wide else stack.transpose(1, 2)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + _LEAST)
    x = _by_product(x) if x.shape[2] > 2 * x.shape[1] else _by_rounds(x)
    return x if wide else x.transpose(1, 2)


def _by_rounds(x: Tensor) -> Tensor:
    """x <- (a + b x x^T + c (x x^T)^2) x."""
    a, b, c = _FACTORS
    for _ in range(_ROUNDS):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x


def _by_product(x: Tensor) -> Tensor:
    """The same for long rows: the factors before x are polynomials of the first x x^T and commute,
    so that their product is formed of small matrices and multiplied by x once."""
    a, b, c = _FACTORS
    gram = x @ x.transpose(1, 2)
    product = unit = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    for _ in range(_ROUNDS):
        factor = a * unit + b * gram + c * (gram @ gram)
        product = factor @ product
        gram = factor @ gram @ factor
    return product @ x
