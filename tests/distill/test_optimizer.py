"""The steps: orthogonal ones for matrices, Adam's for the rest, as large as each other."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="torch is not installed: make test-distill")

from onnxslim.passes.distill.graph.api import torch
from onnxslim.passes.distill.graph.optimizer import RMS, Optimizer, is_matrix, orthogonal


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 40), (2, 10, 6)])
def test_what_remains_of_a_matrix_are_its_directions(shape: tuple[int, ...]) -> None:
    """Singular values of .02 and more of their norm come to lie from .65 to 1.25 (the factors are
    for fast growth, not for 1); the directions stay."""
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(shape, generator=generator)
    left, sizes, right = torch.linalg.svd(given, full_matrices=False)
    sizes = sizes.clamp(min=0.02 * float(sizes.norm(dim=1).max()))
    found = orthogonal(left * sizes[:, None] @ right)
    along = left.transpose(1, 2) @ found @ right.transpose(1, 2)
    values = torch.diagonal(along, dim1=1, dim2=2)
    assert float(values.min()) > 0.65
    assert float(values.max()) < 1.25
    assert torch.allclose(along, torch.diag_embed(values), atol=1e-4)


def test_matrices_are_weights_of_several_features_to_several() -> None:
    assert [s for s in [(4,), (1, 4), (4, 1, 3, 3), (4, 2, 3, 3), (4, 2), (2, 3, 4)]
            if is_matrix(torch.zeros(s))] == [(4, 2, 3, 3), (4, 2), (2, 3, 4)]  # fmt: skip


def test_a_step_is_as_large_for_a_matrix_as_the_rate_says() -> None:
    """A wide matrix of orthogonal rows of length 1 has a root mean square of 1 / sqrt(columns)."""
    generator = torch.Generator().manual_seed(1)
    leaves = {"w": torch.zeros(8, 6, 3, 3), "b": torch.zeros(8), "still": torch.zeros(4, 4)}
    for leaf in leaves.values():
        leaf.grad = torch.randn(leaf.shape, generator=generator)
    leaves["still"].grad = None
    optimizer = Optimizer(leaves)
    optimizer.step(0.01)
    size = float(leaves["w"].square().mean().sqrt())
    assert size == pytest.approx(0.01 * RMS, rel=0.25)
    assert float((leaves["w"] * leaves["w"].grad).sum()) < 0
    wanted = -0.01 * torch.sign(leaves["b"].grad)  # Adam's first
    assert torch.allclose(leaves["b"], wanted, atol=1e-6)
    assert not leaves["still"].any()
    optimizer.zero_grad()
    assert all(leaf.grad is None for leaf in leaves.values())
