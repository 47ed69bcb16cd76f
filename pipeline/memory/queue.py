"""Class-aware FIFO queues of teacher embeddings, the memory that pixels are contrasted with."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.ops.contrast import Contrast
from store.encodings.registry import find_encoding
from store.schema import NO_RECORD

_UINT8 = find_encoding("uint8_per_pixel")
_LEVELS = 255


class Queue:
    """The newest `capacity` embeddings of each class, each with its record's number.

    Nothing in `push` and `sample` depends on values on the host: shapes are fixed, entries that
    are not to be stored are written to one dummy slot after the last.

    Args:
        num_classes: K.
        capacity: slots of one class.
        dim: channels D of an embedding.
        device: where the slots live.
        dtype: how embeddings are stored: torch.float32, torch.bfloat16 for half the memory, or
            torch.uint8 for a quarter: the store's uint8_per_pixel, one float32 scale an embedding,
            which must not be negative then.
    """

    def __init__(
        self,
        num_classes: int,
        capacity: int,
        dim: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.num_classes, self.capacity, self.dim = num_classes, capacity, dim
        self.device = torch.device(device)
        num_slots = num_classes * capacity
        self._slots = {
            "embeddings": torch.zeros(num_slots + 1, dim, dtype=dtype, device=device),
            "records": torch.full((num_slots + 1,), NO_RECORD, device=device),
        }
        if dtype == torch.uint8:
            self._slots["scales"] = torch.zeros(num_slots + 1, device=device)
        self._num_pushed = torch.zeros(num_classes, dtype=torch.int64, device=device)

    @property
    def num_filled(self) -> Tensor:
        """Count the slots of each class that hold an embedding, int64 [K]."""
        return self._num_pushed.clamp_max(self.capacity)

    def push(self, embeddings: Tensor, classes: Tensor, records: Tensor) -> None:
        """Append entries in their order; the oldest of a full class are overwritten.

        Args:
            embeddings: [M, D] on any device, detached here.
            classes: integer [M] in 0..K-1; 255 = nothing to store.
            records: int64 [M], the record that each embedding comes from.
        """
        embeddings, classes, records = (
            x.to(self.device) for x in (embeddings.detach(), classes, records)
        )
        member = classes[:, None].long() == torch.arange(self.num_classes, device=self.device)
        arrived = member.sum(0)
        order = ((member.cumsum(0) - 1) * member).sum(1)
        owner = member.long().argmax(1)
        newest = order >= arrived[owner] - self.capacity
        slot = owner * self.capacity + (self._num_pushed[owner] + order) % self.capacity
        slot = torch.where(member.any(1) & newest, slot, self.num_classes * self.capacity)
        for name, values in {"records": records, **self._encode(embeddings)}.items():
            self._slots[name][slot] = values
        self._num_pushed += arrived

    def sample(
        self, per_class: int, generator: torch.Generator, exclude_records: Tensor | None = None
    ) -> Contrast:
        """Draw `per_class` slots of each class without replacement, filled ones first.

        Args:
            per_class: at most the capacity.
            generator: the random generator, on any device.
            exclude_records: int64 [B], records whose slots are not usable (the batch's own).

        Returns:
            K * per_class embeddings, class by class.

        Raises:
            ValueError: more per class than there are slots.
        """
        if per_class > self.capacity:
            raise ValueError(
                f"Queue.sample: {per_class} per class from {self.capacity} slots; "
                "lower the number drawn or raise the queue's capacity"
            )
        drawn = self._draw(per_class, generator)
        first = torch.arange(self.num_classes, device=self.device)[:, None] * self.capacity
        slot = (first + drawn).flatten()
        usable = (drawn < self.num_filled[:, None]).flatten()
        if exclude_records is not None:
            usable &= (self._slots["records"][slot][:, None] != exclude_records).all(1)
        classes = torch.arange(self.num_classes, device=self.device).repeat_interleave(per_class)
        return Contrast(self._decode(slot), usable, classes)

    def _draw(self, per_class: int, generator: torch.Generator) -> Tensor:
        keys = torch.rand(
            (self.num_classes, self.capacity),
            generator=generator,
            device=generator.device,
            dtype=torch.float64,
        ).to(self.device)
        unfilled = torch.arange(self.capacity, device=self.device) >= self.num_filled[:, None]
        return keys.masked_fill_(unfilled, -1).topk(per_class, sorted=False).indices

    def _encode(self, embeddings: Tensor) -> dict[str, Tensor]:
        """Encode embeddings [M, D] as the slots hold them: all there is beside their records."""
        dtype = self._slots["embeddings"].dtype
        if dtype != torch.uint8:
            return {"embeddings": embeddings.to(dtype)}
        # What `_UINT8.encode` does, where the queue lives: that one is numpy and would wait for it.
        embeddings = embeddings.float()
        scales = embeddings.amax(1) / _LEVELS
        scales = scales.where(scales >= torch.finfo(torch.float32).tiny, 0)
        codes = (embeddings / scales.where(scales > 0, 1)[:, None]).round()
        return {"embeddings": codes.to(dtype), "scales": scales}

    def _decode(self, slot: Tensor) -> Tensor:
        """Decode the embeddings of some slots, float32 [m, D]."""
        embeddings = self._slots["embeddings"][slot]
        if "scales" not in self._slots:
            return embeddings.float()
        decoded: Tensor = _UINT8.decode({"": embeddings, "_scale": self._slots["scales"][slot]})
        return decoded

    def state_dict(self) -> dict[str, Tensor]:
        """Copy everything that the next `push` and `sample` depend on to the host."""
        return {name: tensor.to("cpu", copy=True) for name, tensor in self._state().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue bit for bit where `state_dict` was taken.

        Raises:
            ValueError: a state of other names, shapes or dtypes.
        """
        own = self._state()
        found = {name: (tuple(x.shape), x.dtype) for name, x in state.items()}
        expected = {name: (tuple(x.shape), x.dtype) for name, x in own.items()}
        if found != expected:
            raise ValueError(f"Queue.load_state_dict: expected {expected}, found {found}")
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def _state(self) -> dict[str, Tensor]:
        slots = {name: tensor[:-1] for name, tensor in self._slots.items()}
        return {**slots, "num_pushed": self._num_pushed}
