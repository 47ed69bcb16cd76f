"""How stored records are augmented in training, as a section of params.yaml."""

from __future__ import annotations

from pipeline.config.base import BaseConfig, Fraction, Side


class Augment(BaseConfig):
    """How often a stored record is mirrored, and the size in pixels of what is cut out of it.

    A side that is not given stays whole. Region centers and stored pixel samples stay those of the
    whole record, so the queues are filled as ever. The teacher never saw the cut or the mirrored
    image: the audit's `crop_cosine` and `flip_cosine` say how near its features come to these.
    """

    flip_probability: Fraction = 0.0
    crop_height: Side | None = None
    crop_width: Side | None = None

    @property
    def crops(self) -> bool:
        """Return whether less than a whole record may be left."""
        return self.crop_height is not None or self.crop_width is not None

    def cut_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width in pixels of what is left of records of height x width.

        Raises:
            ValueError: more is asked for than a record has.
        """
        size = self.crop_height or height, self.crop_width or width
        if size[0] > height or size[1] > width:
            raise ValueError(
                f"augment: a crop of {size[0]} x {size[1]} pixels does not fit into records of "
                f"{height} x {width}; lower crop_height or crop_width, or extract larger views "
                "(store.crop)"
            )
        return size


WHOLE = Augment()
"""Records as they are stored."""
