"""Numbers and names in words: units, signs, titles, and the sentence at the head of the page."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config.architectures import find_architecture
from pipeline.config.methods import METHODS, TERMS
from pipeline.report.amortisation import OFFLINE, Amortisation
from pipeline.report.comparison import Row, Spread, find_best, find_headline

ABSENT = "–"
SOURCES = {
    "train": "trained here",
    "torchvision": "published by torchvision",
    "checkpoint": "from a checkpoint",
}
HEADS = {"task": "Cross-entropy", "auxiliary": "Cross-entropy, auxiliary head"}
# What an audit measured against the teacher -> in words; also the order in which it is shown.
FIDELITY = {
    "logits_kl": "KL of stored from online class probabilities, nats",
    "argmax_kept": "pixels whose class stays, share",
    "similarity_kl": "KL of stored from online similarities, nats",
    "features_cosine": "stored features, cosine",
    "flip_cosine": "stored features mirrored, cosine to the teacher on the mirrored image",
    "crop_cosine": "stored features cropped, cosine to the teacher on the cropped image",
}

VARIANTS = {
    "offline": "from the store, extraction included",
    "online": "teacher in the loop, the same losses",
    "public_code": "teacher in the loop, as the paper’s public code computes",
}


def architecture_title(name: str) -> str:
    """Return an architecture's title, or its name where the registry knows it no more."""
    try:
        return find_architecture(name).title
    except ValueError:
        return name


def method_title(label: str) -> str:
    """Write a method as papers do; free combinations of terms keep their names."""
    return label.upper() if label in METHODS else label


def row_title(row: Row) -> str:
    """Name a row's method, and what tells it from other rows of it: CIRKD, pixel_queue 500."""
    settings = (
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in row.distinction
    )
    return ", ".join([method_title(row.label), *settings])


def source_title(source: str) -> str:
    """Say where a teacher comes from."""
    return SOURCES.get(source, source)


def term_titles() -> dict[str, str]:
    """List the terms of objectives with their titles, in the order in which they are shown."""
    return {**HEADS, **{name: term.title for name, term in TERMS.items()}}


def term_title(name: str) -> str:
    """Name a term of an objective in words."""
    return term_titles().get(name, name.replace("_", " "))


def percent(value: float | None, digits: int = 2) -> str:
    """Write a share 0..1 in percent, without the sign: 0.71234 -> 71.23."""
    return ABSENT if value is None else f"{100 * value:.{digits}f}"


def points(value: float | None, digits: int = 2) -> str:
    """Write a difference of shares in signed percentage points: 0.0123 -> +1.23."""
    if value is None:
        return ABSENT
    text = f"{100 * value:+.{digits}f}".replace("-", "−")
    return text.lstrip("+−") if float(text.replace("−", "-")) == 0 else text


def count(value: int) -> str:
    """Write a whole number with its thousands apart: 12345 -> 12 345."""
    return f"{value:,}".replace(",", " ")


def flops(value: int | None) -> str:
    """Write operations in billions: 12 345 678 901 -> 12.3 G."""
    return ABSENT if value is None else f"{value / 1e9:.3g} G"


def number_of(value: int, singular: str, plural: str | None = None) -> str:
    """Write a count and its noun: 2 runs."""
    return f"{count(value)} {singular if value == 1 else plural or singular + 's'}"


def duration(seconds: float | None) -> str:
    """Write seconds as a reader would say them: 43.2 s, 3 min 05 s, 2 h 07 min."""
    if seconds is None:
        return ABSENT
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def time_unit(seconds: float) -> tuple[float, str]:
    """Choose the largest unit, in seconds and in words, that a time fills at least twice."""
    units = ((3600, "hours"), (60, "minutes"), (1, "seconds"))
    return next((unit for unit in units if seconds >= 2 * unit[0]), units[-1])


def amortised(found: Amortisation) -> str:
    """Say from how many students on a store costs less than a teacher in the loop."""
    once, each = duration(found.extraction_s), duration(found.student_s[OFFLINE])
    sentences = [
        f"{found.student}: {once} of extraction once, then {each} a student.",
        "The teacher’s own training is common to all variants, left out; a ring: the store pays.",
    ]
    for variant in found.baselines:
        even = found.break_even(variant)
        pays = "never pays" if even is None else f"pays from {number_of(even, 'student')} on"
        each = duration(found.student_s[variant])
        sentences.append(f"{VARIANTS[variant].capitalize()}: {each} a student; the store {pays}.")
    return " ".join(sentences)


def size(num_bytes: float | None) -> str:
    """Write bytes in decimal units: 12 345 678 -> 12.3 MB."""
    if num_bytes is None:
        return ABSENT
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


def headline(rows: Sequence[Row], teacher_miou: float | None) -> str:
    """Say what came out, in one or two sentences, whichever student won."""
    best, compared = find_best(rows), find_headline(rows)
    if best is None or best.miou is None:
        return "No student was measured: no class occurs in the validation split."
    if compared is None or compared.gain is None or compared.miou is None:
        return (
            f"The best student, {_name(best)}, reaches {percent(best.miou.mean, 1)} % mIoU; "
            "no distilled run has its cross-entropy run (same network, training, seed) beside it."
        )
    sentence = f"{_result(compared)}{_gap(compared, teacher_miou)}."
    others = [row for row in rows if row.gain is not None]
    if len(others) > 1:
        ahead = sum(row.gain.mean > 0 for row in others if row.gain is not None)
        sentence += f" Distillation is ahead in {ahead} of {len(others)} comparisons."
    return sentence


def caveat(rows: Sequence[Row]) -> str:
    """Say how far the headline may be trusted."""
    row = find_headline(rows)
    if row is None or row.gain is None:
        return ""
    spread = row.gain
    if spread.interval is None:
        return (
            "One seed: a single pair of runs cannot tell a gain from chance. "
            "Add seeds to params.students to see the spread."
        )
    low, high = spread.interval
    verdict = "leaves zero out" if spread.is_certain else "holds zero: the gain may be chance"
    return (
        f"{spread.count} seeds: the gain is {points(spread.mean)} points, and its 95 % interval, "
        f"{points(low)} to {points(high)}, {verdict}."
    )


def _result(row: Row) -> str:
    gain, miou = row.gain, row.miou
    assert gain is not None
    assert miou is not None
    reached = f"reaches {percent(miou.mean, 1)} % mIoU"
    tenths = round(1000 * gain.mean) / 10
    if tenths == 0:
        return f"{_name(row)} {reached}, level with the same network trained on labels alone"
    side = "above" if tenths > 0 else "below"
    distance = f"{abs(tenths):.1f} point{'' if abs(tenths) == 1 else 's'}"
    return f"{_name(row)} {reached}, {distance} {side} the same network trained on labels alone"


def _gap(row: Row, teacher_miou: float | None) -> str:
    if teacher_miou is None:
        return ""
    reached = f"{percent(teacher_miou, 1)} %"
    gain, base = row.gain, row.baseline_miou
    distance = teacher_miou - base.mean if base is not None else 0.0
    if gain is None or gain.mean <= 0 or gain.mean > distance:
        return f"; the teacher reaches {reached}"
    return f", {100 * gain.mean / distance:.0f} % of the way to the teacher’s {reached}"


def _name(row: Row) -> str:
    return f"{architecture_title(row.architecture)} with {row_title(row)}"


def spread(value: Spread | None, digits: int = 2, signed: bool = False) -> str:
    """Write a mean in percent, with its deviation where there is one."""
    if value is None:
        return ABSENT
    mean = points(value.mean, digits) if signed else percent(value.mean, digits)
    return mean if value.deviation is None else f"{mean} ± {percent(value.deviation, digits)}"
