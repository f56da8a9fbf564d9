"""Where slides are fetched: in the actors that score them, or in a stage of tasks that hand compressed tiles on."""

from collections.abc import Sequence
from typing import Final, Literal

Reader = Literal["inline", "staged", "auto"]
Place = Literal["inline", "staged"]

ENOUGH_CPUS: Final = 8.0
"""CPUs beside each GPU that keep it busy by themselves: decoding takes most of them, and it stays with the actor."""


def place_of_reading(asked: Reader, nodes: Sequence[tuple[float, float]]) -> tuple[Place, str]:
    """Where to fetch on a cluster, and why. nodes: CPUs and GPUs of each node."""
    if asked != "auto":
        return asked, "as asked"
    gpus = sum(node_gpus for _, node_gpus in nodes)
    if not gpus:
        return "inline", "there is no GPU: each CPU reads what it scores, and nothing travels twice"
    beside = sum(cpus for cpus, node_gpus in nodes if node_gpus)
    elsewhere = sum(cpus for cpus, node_gpus in nodes if not node_gpus)
    per_gpu = f"{beside / gpus:g} CPUs per GPU"
    if beside / gpus >= ENOUGH_CPUS:
        return "inline", f"{per_gpu} are enough to read beside it"
    if not elsewhere:
        return "inline", f"{per_gpu} are few, but no node without GPUs could read for them"
    return "staged", f"{per_gpu} are few, and {elsewhere:g} CPUs on nodes without GPUs can fetch for them"
