"""Constants are replaced by results of about their size, not kept beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from onnxslim.analyses.facts import Facts
from onnxslim.ir import Model, Node, Value
from onnxslim.passes.fold.region import Region, Search, constant_bytes


def find_region(model: Model, facts: Facts, limit: int, banned: Collection[Node]) -> Region:
    """The largest region whose results take no more than the constants that go, or the limit.

    First all constants are thought to go; those that do not are found, and the search repeated.
    """
    staying: set[Value] = set()
    while True:
        search = Search(model, facts, limit, banned, staying)
        region = search.region()
        found = _staying(region, search) - staying
        if not found:
            return region
        staying |= found


def _staying(region: Region, search: Search) -> set[Value]:
    """Roots that something else reads, and those whose results take more than they do."""
    load: Counter[Value] = Counter()
    for value in region.wanted() if region.roots else ():
        roots = region.roots.get(value, frozenset())
        total = sum(map(constant_bytes, roots))
        for root in roots:
            load[root] += search.bytes(region, value) * constant_bytes(root) // total
    return {
        root
        for root in frozenset[Value]().union(*region.roots.values())
        if root.is_graph_output()
        or region.outside(root)
        or load[root] > max(search.limit, constant_bytes(root))
    }
