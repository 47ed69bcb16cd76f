"""The terms of the labels: cross-entropy of every head that a network has."""

from torch import Tensor

from pipeline.losses.cross_entropy import cross_entropy
from pipeline.models.network import Output, upsample
from pipeline.ops.mean import Mean


def label_terms(output: Output, labels: Tensor) -> dict[str, Mean]:
    """Compare each head, upsampled to the labels' size in float32, with uint8 labels [B, H, W].

    Returns:
        `task`, and `auxiliary` where the network has that head.
    """
    size = (labels.shape[-2], labels.shape[-1])
    heads = {"task": output.logits, "auxiliary": output.auxiliary}
    return {
        name: cross_entropy(upsample(logits.float(), size), labels)
        for name, logits in heads.items()
        if logits is not None
    }
