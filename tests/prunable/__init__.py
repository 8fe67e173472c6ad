"""Small networks of the kinds that pruning has to follow, by name: text, weights, groups."""

from tests.prunable.images import IMAGES
from tests.prunable.network import Network
from tests.prunable.sequences import SEQUENCES

__all__ = ["NETWORKS", "Network"]

NETWORKS: dict[str, Network] = {**IMAGES, **SEQUENCES}
