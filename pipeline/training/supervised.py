"""How a teacher is trained: fresh random views of labelled images, and cross-entropy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipeline.config.params import TeacherConfig
from pipeline.datasets.index import Index, read_image, read_labels
from pipeline.datasets.views import draw_view
from pipeline.distillation.label_terms import label_terms
from pipeline.loading.workers import open_loader
from pipeline.models.network import Network, compile_network
from pipeline.runtime.distributed import SINGLE_PROCESS, Ranks
from pipeline.runtime.precision import precision_scope
from pipeline.runtime.rng import seed_sequence, seed_torch
from pipeline.training.run import Resources, TrainingRun


@dataclass(frozen=True)
class Labelled:
    """What a teacher learns from: images uint8 [B, 3, H, W] and their labels [B, H, W]."""

    image: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.image)

    def first(self, size: int) -> Labelled:
        """Return the first `size` of them."""
        return Labelled(self.image[:size], self.labels[:size])


class _Crops(Dataset[tuple[Tensor, Tensor]]):
    """Freshly drawn training views per item, numbered from the start of the training."""

    def __init__(self, index: Index, settings: TeacherConfig) -> None:
        self._index, self._settings = index, settings

    def __getitem__(self, numbers: range) -> tuple[Tensor, Tensor]:
        samples, seed = self._index.splits["train"], self._settings.seed
        crop = self._settings.crop_at(numbers[0] // self._settings.training.batch_size)
        images, labels = [], []
        for number in numbers:
            epoch, position = divmod(number, len(samples))
            sample = samples[_epoch_order(seed, epoch, len(samples))[position]]
            view = draw_view(crop, seed, sample.key, epoch, sample.height, sample.width)
            images.append(view.image(read_image(self._index, sample)))
            labels.append(view.labels(read_labels(self._index, sample)))
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, num_samples: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed_sequence(seed, "order", epoch)).permutation(num_samples)


def crops(
    index: Index,
    settings: TeacherConfig,
    steps: range,
    device: torch.device,
    num_workers: int,
    ranks: Ranks = SINGLE_PROCESS,
) -> Iterator[Labelled]:
    """Stream this rank's micro-batches of the given steps."""
    training = settings.training
    size = training.micro_batch_size(ranks.size)
    whole = size * ranks.size
    firsts = range(steps.start * training.batch_size, steps.stop * training.batch_size, whole)
    batches = [ranks.shard(range(first, first + whole)) for first in firsts]
    dataset = _Crops(index, settings)
    loader = open_loader(dataset, batches, settings.seed, num_workers, device.type == "cuda")
    for image, labels in loader:
        yield Labelled(*(x.to(device, non_blocking=True) for x in (image, labels)))


class SupervisedTerms(nn.Module):
    """Cross-entropy of a teacher's heads, as means over all ranks."""

    def __init__(self, teacher: Network, precision: str, ranks: Ranks = SINGLE_PROCESS) -> None:
        super().__init__()
        self.teacher, self._precision, self._ranks = teacher, precision, ranks

    def forward(self, batch: Labelled) -> dict[str, Tensor]:
        """Return every term's mean, by name."""
        with precision_scope(batch.labels.device, self._precision):
            output = self.teacher(self.teacher.normalise(batch.image))
        return self._ranks.merge(label_terms(self.teacher, output, batch.labels))


def teacher_run(
    teacher: Network,
    settings: TeacherConfig,
    index: Index,
    header: Mapping[str, Any],
    resources: Resources,
) -> TrainingRun:
    """Describe the training of a teacher from the labelled images of a dataset.

    Args:
        teacher: fresh, on the device that it is trained on.
        settings: of the teacher.
        index: of the dataset.
        header: first line of the log, JSON values.
        resources: what may be used.

    Raises:
        ValueError: a batch cannot be split among the ranks.
    """
    training, ranks = settings.training, resources.ranks
    device = next(teacher.parameters()).device
    training.micro_batch_size(ranks.size)
    compile_network(teacher, training.compile)
    terms = SupervisedTerms(teacher.train(), training.precision, ranks)
    return TrainingRun(
        title=f"teacher {settings.name}",
        training=training,
        modules=teacher,
        parts={},
        compute_terms=ranks.replicate(terms, device),
        weights={"task": 1.0, "auxiliary": training.auxiliary_weight},
        open_batches=lambda steps: crops(
            index, settings, steps, device, resources.num_workers, ranks
        ),
        begin=partial(seed_torch, settings.seed, "teacher", "dropout", *ranks.path),
        work=resources.work,
        header=header,
        ranks=ranks,
        tensorboard=resources.tensorboard,
    )
