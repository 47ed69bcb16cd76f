"""The orderings of the paper's ablations, held against the runs of a profile that repeats them.

Yang et al., CVPR 2022, on Cityscapes: every term adds, KD most, memory pixel-to-pixel more than
memory pixel-to-region; a larger queue is better up to a size, and then a little worse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.config.methods import METHODS
from pipeline.report.comparison import Row, Spread, describe_settings, difference, find_best
from pipeline.report.wording import spread, term_title

QUEUES = ("pixel_queue", "region_queue")
VERDICTS = ("holds here", "does not hold here", "cannot be told from chance")


@dataclass(frozen=True)
class Ordering:
    """One thing the paper found better than another.

    Attributes:
        words: what is above what.
        gap: mIoU of the better minus that of the worse, over the seeds that both have.
    """

    words: str
    gap: Spread | None

    @property
    def verdict(self) -> str:
        """Return one of VERDICTS; a gap whose 95 % interval holds zero tells nothing."""
        if self.gap is None or not self.gap.is_certain:
            return VERDICTS[2]
        return VERDICTS[self.gap.mean < 0]


def find_orderings(rows: Sequence[Row]) -> tuple[Ordering, ...]:
    """Find every ordering of the paper that these rows repeat; none where nothing is ablated."""
    networks: dict[str, list[Row]] = {}
    for row in rows:
        settings = row.runs[0].settings
        network = f"{row.architecture} {settings.encoder_weights} {settings.training}"
        networks.setdefault(network, []).append(row)
    return tuple(
        ordering
        for same in networks.values()
        for ordering in (*_of_terms(same), *(o for name in QUEUES for o in _of_sizes(same, name)))
    )


def sentences(rows: Sequence[Row]) -> tuple[str, ...]:
    """Say what holds, what does not and what cannot be told; () without ablation."""
    found = find_orderings(rows)
    lines = []
    for verdict in VERDICTS:
        told = [f"{o.words} ({spread(o.gap, signed=True)})" for o in found if o.verdict == verdict]
        if told:
            lines.append(f"{verdict[0].upper()}{verdict[1:]}: {'; '.join(told)}.")
    return tuple(lines)


def _of_terms(rows: Sequence[Row]) -> Iterator[Ordering]:
    """Compare each term with cross-entropy, KD with the others, memory pixels with regions."""
    alone: dict[str, Row] = {}
    for row in rows:
        (term, *more) = row.runs[0].settings.weights or ("ce",)
        if not more and term in ("ce", *METHODS["cirkd"]):
            alone.setdefault(term, row)
    base = alone.pop("ce", None)
    if len(alone) < 2:
        return
    if base is not None:
        for term, row in alone.items():
            yield Ordering(f"{term_title(term)} adds to cross-entropy", _gap(row, base))
    pairs = [("kd", term) for term in alone if term != "kd"] + [("memory_pixel", "memory_region")]
    for better, worse in pairs:
        if better in alone and worse in alone:
            words = f"{term_title(better)} adds more than {term_title(worse)}"
            yield Ordering(words, _gap(alone[better], alone[worse]))


def _of_sizes(rows: Sequence[Row], queue: str) -> Iterator[Ordering]:
    """Compare the best inner size with the smallest and the largest, all else being equal."""

    def size_of(row: Row) -> int:
        size: int = getattr(row.runs[0].settings.distillation, queue)
        return size

    groups: dict[str, list[Row]] = {}
    for row in (row for row in rows if row.label == "cirkd"):
        others = {**describe_settings(row), queue: None}
        groups.setdefault(str(others), []).append(row)
    for group in (group for group in groups.values() if len(group) > 2):
        smallest, *inner, largest = sorted(group, key=size_of)
        best = find_best(inner)
        if best is None:
            continue
        for extreme, row in (("smallest", smallest), ("largest", largest)):
            words = f"{queue} {size_of(best)} is better than the {extreme}, {size_of(row)}"
            yield Ordering(words, _gap(best, row))


def _gap(better: Row, worse: Row) -> Spread | None:
    others = {run.settings.seed: run.scores.miou for run in worse.runs}
    return Spread.of(
        difference(run.scores.miou, others.get(run.settings.seed)) for run in better.runs
    )
