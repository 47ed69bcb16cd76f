"""Read a store as a torch Dataset: python examples/read_torch.py MANIFEST."""

import sys

import torch
from torch.utils.data import DataLoader, Dataset

from store.manifest import Manifest


class Records(Dataset[tuple[torch.Tensor, ...]]):
    """Image, labels, and the teacher's logits and features of every record."""

    def __init__(self, manifest: str) -> None:
        self.reader = Manifest.read(manifest).open()

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, ...]:
        record = self.reader.read([number], self.reader.arrays)
        targets = (self.reader.decode(name, record) for name in ("logits", "features"))
        return tuple(torch.from_numpy(x[0]) for x in (record["image"], record["labels"], *targets))


for image, labels, logits, features in DataLoader(Records(sys.argv[1]), batch_size=2):
    print(*(tuple(x.shape) for x in (image, labels, logits, features)))
