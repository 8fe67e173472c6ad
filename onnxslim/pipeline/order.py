"""The order of passes is the user's; a doubtful one warns, an impossible one fails."""

from __future__ import annotations

from collections.abc import Sequence

from onnxslim.errors import ConfigError

DOUBTFUL: tuple[tuple[str, str, str], ...] = (
    ("quant", "simplify", "simplify fuses float operators and leaves quantized ones alone"),
    ("quant", "prune", "prune ranks float channels, and quantized weights have lost detail"),
    (
        "lowrank",
        "prune",
        "prune cuts whole channels, and factors of low rank have none of their own",
    ),
    ("distill", "prune", "what prune loses is then not won back"),
    ("distill", "lowrank", "what lowrank loses is then not won back"),
)
"""(first, then, why it is doubtful)."""


def check_order(names: Sequence[str]) -> tuple[str, ...]:
    """Warnings for a doubtful order; raises ConfigError for an impossible one."""
    if "check" in names[:-1]:
        raise ConfigError(
            f"pipeline {','.join(names)}: 'check' compares the result; put it last, once"
        )
    return tuple(
        f"'{first}' before '{then}' is doubtful: {why}; usually '{then},{first}'"
        for first, then, why in DOUBTFUL
        if first in names and then in names[names.index(first) + 1 :]
    )
