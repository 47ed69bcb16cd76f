"""The terms of the labels: cross-entropy of every head that a network has."""

from torch import Tensor

from pipeline.losses.cross_entropy import cross_entropy
from pipeline.models.network import Network, Output
from pipeline.ops.mean import Mean


def label_terms(network: Network, output: Output, labels: Tensor) -> dict[str, Mean]:
    """Compare each head, upsampled to the labels' size in float32, with uint8 labels [B, H, W].

    Args:
        network: whose output it is, and whose rule of upsampling.
        output: of a batch.
        labels: of it, 255 = void.

    Returns:
        `task`, and `auxiliary` where the network has that head.
    """
    size = (labels.shape[-2], labels.shape[-1])
    heads = {"task": output.logits, "auxiliary": output.auxiliary}
    return {
        name: cross_entropy(network.upsample(logits.float(), size), labels)
        for name, logits in heads.items()
        if logits is not None
    }
