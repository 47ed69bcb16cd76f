"""The physical floor of a step: its products' operations over the machine's matrix rate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.benchmarks.sizes import Sizes
from pipeline.benchmarks.timing import interleaved_medians
from pipeline.distillation.objective import Objective
from pipeline.memory.contrast_memory import contrast_per_class
from pipeline.models.flops import flop_counter
from pipeline.models.network import Network
from store.schema import StoreSpec


def floor(objective: Objective, sizes: Sizes, spec: StoreSpec, rate: float) -> dict[str, float]:
    """Compute the seconds that a step's products take at a rate, whatever the implementation.

    Args:
        objective: of a CIRKD run.
        sizes: sizes of its batch, queues and contrast sets.
        spec: of its store.
        rate: operations a second; see `matrix_rate`.
    """
    network = objective.modules["student"]
    assert isinstance(network, Network)
    device = next(network.parameters()).device
    shape = (sizes.batch_size, 3, sizes.height, sizes.width)
    image = torch.zeros(shape, dtype=torch.uint8, device=device)
    student, projector = network_flops(objective.modules, image)
    losses = relational_flops(sizes, spec, network.feature_channels)
    return {
        "matrix_flops_per_s": rate,
        "student_flops": student,
        "projector_flops": projector,
        "losses_flops": losses,
        "ce_floor_s": student / rate,
        "offline_floor_s": (student + projector + losses) / rate,
        "offline_over_ce_floor": (student + projector + losses) / student,
    }


def matrix_rate(device: torch.device, precision: str, side: int, num_runs: int = 5) -> float:
    """Measure operations a second in a large square product, median of `num_runs`."""
    dtype = getattr(torch, precision)
    left, right = (torch.ones(side, side, dtype=dtype, device=device) for _ in range(2))
    seconds = interleaved_medians({"product": lambda: (left @ right)[0, 0].item()}, num_runs)
    return 2 * side**3 / seconds["product"]


def network_flops(modules: nn.ModuleDict, image: Tensor) -> tuple[int, int]:
    """Count the operations of the student's forward and backward pass, and of the projector's."""
    student = modules["student"]
    assert isinstance(student, Network)
    with flop_counter() as counter:
        output = student(student.normalise(image))
        heads = [head.sum() for head in (output.logits, output.auxiliary) if head is not None]
        torch.autograd.backward(torch.stack(heads).sum())
    student_flops = counter.get_total_flops()
    features = output.features.detach().requires_grad_()
    with flop_counter() as counter:
        torch.autograd.backward(modules["projector"](features).sum())
    return student_flops, counter.get_total_flops()


def relational_flops(sizes: Sizes, spec: StoreSpec, student_channels: int) -> int:
    """Count the operations of the products that the three relational terms cannot do without.

    Mini-batch: both networks' similarities, and the student's gradient as row and as column.
    Memory: both networks' similarities to each contrast set, and the student's gradient.
    """
    area = spec.feature_height * spec.feature_width
    pixels = sizes.batch_size * area
    rows = sizes.batch_size * (sizes.anchors_per_image or area)
    num_classes = sizes.num_classes
    contrast = sum(
        num_classes * contrast_per_class(wanted, num_classes)
        for wanted in (sizes.pixel_contrast, sizes.region_contrast)
    )
    minibatch = 2 * rows * pixels * (3 * student_channels + spec.feature_channels)
    memory = 2 * rows * contrast * 3 * spec.feature_channels
    return minibatch + memory
