"""All recipes, and one step of a random graph."""

from __future__ import annotations

import contextlib

from tests.random_graphs import (
    compounds,
    control,
    elementwise,
    layers,
    movement,
    patterns,
    reductions,
    selection,
    sizes,
)
from tests.random_graphs.builder import Builder, Unfit
from tests.random_graphs.elementwise import Recipe

GROUPS: tuple[tuple[int, list[tuple[int, Recipe]]], ...] = (
    (4, elementwise.RECIPES),
    (3, movement.RECIPES),
    (3, selection.RECIPES),
    (5, sizes.RECIPES),
    (3, layers.RECIPES),
    (1, reductions.RECIPES),
    (3, patterns.RECIPES),
    (3, compounds.RECIPES),
    (2, control.RECIPES),
)


def step(b: Builder) -> None:
    """Add the nodes of one recipe; those that found nothing to work on add none, or a few."""
    weights = [weight for weight, _ in GROUPS]
    recipes = b.rng.choices(GROUPS, weights)[0][1]
    recipe = b.rng.choices([r for _, r in recipes], [w for w, _ in recipes])[0]
    with contextlib.suppress(Unfit):
        recipe(b)
