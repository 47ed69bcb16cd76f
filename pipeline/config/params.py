"""params.yaml as frozen models: every number, checked once, before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML

from pipeline.config.architectures import ArchitectureName, is_import_path
from pipeline.config.base import (
    STRIDE,
    BaseConfig,
    Count,
    Fraction,
    Name,
    Positive,
    Precision,
    Seed,
    Side,
    Weight,
    explain,
    one_of,
)
from pipeline.config.datasets import DatasetSection
from pipeline.config.methods import METHODS, TERMS
from pipeline.config.profile import LISTS, expand_students
from pipeline.config.training import StudentTrainingConfig, TrainingConfig
from pipeline.config.yaml import read_yaml
from store.arrays import TARGETS
from store.encodings.registry import ENCODINGS
from store.files import replacing


class ParamsError(ValueError):
    """A params file that cannot be read or breaks the rules; the message lists every finding."""


class Crop(BaseConfig):
    """How a random view of an image is drawn: scale on a 0.1 grid, window in pixels, flip."""

    height: Side
    width: Side
    scale_min: Positive
    scale_max: Positive
    flip_probability: Fraction

    @model_validator(mode="after")
    def _scales_in_order(self) -> Crop:
        if self.scale_min > self.scale_max:
            raise ValueError(f"scale_min {self.scale_min} is above scale_max {self.scale_max}")
        return self

    def resized(self, factor: float) -> Crop:
        """Return the crop that shows as much of an image in factor x factor as many pixels."""
        return Crop(
            height=round(self.height * factor),
            width=round(self.width * factor),
            scale_min=self.scale_min * factor,
            scale_max=self.scale_max * factor,
            flip_probability=self.flip_probability,
        )


class SmallPhase(BaseConfig):
    """The first, or next, steps of a training, on smaller images (progressive resizing)."""

    steps: Count
    factor: Annotated[float, Field(gt=0, lt=1)]  # of each side


def _check_feature_layer(architecture: str, feature_layer: str | None) -> None:
    if feature_layer is not None and not is_import_path(architecture):
        raise ValueError("feature_layer goes with architecture: package.module:factory alone")


class TeacherConfig(BaseConfig):
    """The teacher's architecture and where its weights come from."""

    name: Name
    architecture: ArchitectureName = "deeplabv3_resnet101"
    feature_layer: str | None = None  # of an imported module that returns logits alone
    source: Literal["train", "torchvision", "checkpoint"]
    weights: str | None = None
    checkpoint: str | None = None
    backbone: str = "none"
    stride: Count | None = None
    seed: Seed
    dropout: Fraction
    crop: Crop
    training: TrainingConfig
    progressive: Annotated[tuple[SmallPhase, ...], Field(strict=False)] = ()

    @property
    def crops(self) -> tuple[Crop, ...]:
        """Return the crops of all phases."""
        return (*(self.crop.resized(phase.factor) for phase in self.progressive), self.crop)

    def crop_at(self, step: int) -> Crop:
        """Return the crop that training step `step` (0-based) draws its views with."""
        for phase in self.progressive:
            if step < phase.steps:
                return self.crop.resized(phase.factor)
            step -= phase.steps
        return self.crop

    @model_validator(mode="after")
    def _phases_fit(self) -> TeacherConfig:
        small = sum(phase.steps for phase in self.progressive)
        if small >= self.training.steps:
            raise ValueError(
                f"progressive: {small} steps on smaller images leave none of training.steps "
                f"{self.training.steps} for whole ones"
            )
        for phase in self.progressive:
            try:
                self.crop.resized(phase.factor)
            except ValidationError:
                raise ValueError(
                    f"progressive: factor {phase.factor} of a crop of {self.crop.height}x"
                    f"{self.crop.width}; expected sides of {2 * STRIDE} or more in multiples of "
                    f"{STRIDE}"
                ) from None
        return self

    @model_validator(mode="after")
    def _source_has_its_field(self) -> TeacherConfig:
        _check_feature_layer(self.architecture, self.feature_layer)
        given = {"torchvision": self.weights, "checkpoint": self.checkpoint}
        for source, value in given.items():
            if (self.source == source) != (value is not None):
                field = "weights" if source == "torchvision" else "checkpoint"
                raise ValueError(f"{field} goes with source: {source}, and only with it")
        if self.backbone != "none" and self.source != "train":
            raise ValueError("backbone goes with source: train, and only with it")
        return self


class Subspace(BaseConfig):
    """Features by their coordinates in the subspace that they fill, in int8 with a scale a pixel.

    Its rank is given, or is the least whose similarities diverge by no more than `max_kl` nats.
    """

    encoding: Literal["subspace"]
    rank: Count | None = None
    max_kl: Positive | None = None
    fit_views: Annotated[int, Field(ge=8, lt=2**31)] = 128  # that the teacher sees before all views

    @model_validator(mode="after")
    def _one_measure(self) -> Subspace:
        if (self.rank is None) == (self.max_kl is None):
            raise ValueError("give a rank, or max_kl, and not both")
        return self


def _tag_features(value: Any) -> str:  # not checked yet
    return "<name>" if isinstance(value, str) else "<subspace>"


class Encodings(BaseConfig):
    """Which lossy encoding holds each of the two large arrays."""

    logits: Annotated[str, one_of(ENCODINGS)]
    features: Annotated[
        Annotated[str, one_of(ENCODINGS), Tag("<name>")] | Annotated[Subspace, Tag("<subspace>")],
        Discriminator(_tag_features),
    ]

    @property
    def subspace(self) -> Subspace | None:
        """Return what is asked of a subspace, if features are stored by one."""
        return self.features if isinstance(self.features, Subspace) else None

    @property
    def stored_features(self) -> str:
        """Return the name of what holds the features, or their coordinates."""
        return self.features if isinstance(self.features, str) else "int8_per_pixel"


class StoreConfig(BaseConfig):
    """What the teacher's single pass writes down."""

    name: Name
    num_views: Count
    seed: Seed
    crop: Crop
    encodings: Encodings
    samples_per_class: Count
    unit_size: Count
    forward_batch: Count
    threads: Count
    precision: Precision
    targets: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = TARGETS

    @field_validator("targets")
    @classmethod
    def _known(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(targets) - set(TARGETS))
        if unknown:
            raise ValueError(f"expected some of {', '.join(TARGETS)}; found {unknown}")
        # The same targets are the same store, however they were listed.
        return tuple(name for name in TARGETS if name in targets)

    @property
    def identity(self) -> dict[str, Any]:  # JSON
        """Return what a store's identity says of its views and their encodings."""
        views = {
            "num_views": self.num_views,
            "seed": self.seed,
            "samples_per_class": self.samples_per_class,
            **self.crop.model_dump(),
        }
        return {"views": views, "encodings": self.encodings.model_dump(exclude_none=True)}


class DistillationConfig(BaseConfig):
    """Temperatures and queue sizes of the relational terms (T, tau, N_p, N_r, K_p, K_r, V)."""

    temperature: Positive
    similarity_temperature: Positive
    pixel_queue: Count
    region_queue: Count
    pixel_contrast: Count
    region_contrast: Count
    pixels_per_class: Count
    cross_rank_contrast: bool = False  # the mini-batch term's columns: of all ranks, or the own
    # Queues of the newest embeddings, or every embedding of the store (then no queue_* applies).
    memory: Literal["queue", "bank"] = "queue"
    # Of pixels and regions; CIRKDV2's queue of channels is small and stays float32.
    queue_storage: Literal["float32", "bfloat16", "uint8"] = "float32"
    minibatch_anchors: Count | None = None  # random rows of a step, all ranks together; else all
    memory_anchors: Count | None = None
    channel_queue: Count = 10_000  # CIRKDV2's three
    channel_contrast: Count = 2048
    channels_per_step: Count = 256


class StudentConfig(BaseConfig):
    """One run: an architecture, a method (or its own terms), a seed.

    Terms beside a method are other weights of its own terms.
    """

    architecture: ArchitectureName
    feature_layer: str | None = None  # of an imported module that returns logits alone
    encoder_weights: str = "none"
    method: Annotated[str, one_of(METHODS)] | None = None
    terms: dict[Annotated[str, one_of(TERMS)], Weight] | None = None
    seed: Seed
    training: StudentTrainingConfig
    distillation: DistillationConfig

    @model_validator(mode="after")
    def _one_objective(self) -> StudentConfig:
        _check_feature_layer(self.architecture, self.feature_layer)
        if self.method is None and self.terms is None:
            raise ValueError("give a method, or terms")
        foreign = sorted(set(self.terms or {}) - set(METHODS[self.method])) if self.method else []
        if foreign:
            raise ValueError(
                f"method {self.method} has no term {foreign[0]}, whose weight could be changed; "
                "to combine terms freely, give terms and no method"
            )
        whole = [term for term in self.weights if TERMS[term].whole_records]
        if whole and self.training.augment.crops:
            raise ValueError(f"{whole[0]} compares maps of whole records; leave out crop_* or it")
        return self

    @property
    def weights(self) -> dict[str, float]:
        """Return the weight of every term beside cross-entropy."""
        return {**METHODS.get(self.method or "", {}), **(self.terms or {})}

    @property
    def all_weights(self) -> dict[str, float]:
        """Return the weight of every term, cross-entropy's two included."""
        return {"task": 1.0, "auxiliary": self.training.auxiliary_weight, **self.weights}

    @property
    def label(self) -> str:
        """Return the method's name in tables; free combinations are named by their terms.

        A term with the name of a method of more terms has its weight beside it.
        """
        name = self.method or "+".join(sorted(self.weights)) or "ce"
        if METHODS.get(name, self.weights).keys() == self.weights.keys():
            return name
        return f"{name} {self.weights[name]:g}"


class Params(BaseConfig):
    """All of params.yaml."""

    profile: Name
    dataset: DatasetSection
    teacher: TeacherConfig
    store: StoreConfig
    training: StudentTrainingConfig
    distillation: DistillationConfig
    students: Annotated[dict[Name, StudentConfig], Field(min_length=1)]

    @property
    def architectures(self) -> set[str]:
        """Return the names of all networks, which alone may be imported when a file is read."""
        return {self.teacher.architecture, *(one.architecture for one in self.students.values())}

    @model_validator(mode="before")
    @classmethod
    def _fill_students(cls, raw: Any) -> Any:  # not checked yet
        """Give each student the shared sections, its own keys winning."""
        if not isinstance(raw, dict) or not isinstance(raw.get("students"), dict):
            return raw
        students = [one for one in raw["students"].values() if isinstance(one, dict)]
        lists = sorted(LISTS.keys() & {key for student in students for key in student})
        if lists:
            raise ValueError(
                f"students: {lists[0]} of several runs belong in a profile; `cirkd profile use "
                "NAME` writes each run out, because DVC knows a run by its name"
            )
        filled = {run: _with_shared(student, raw) for run, student in raw["students"].items()}
        return {**raw, "students": filled}

    @model_validator(mode="after")
    def _crops_fit(self) -> Params:
        record = self.store.crop
        for run, student in self.students.items():
            try:
                student.training.augment.cut_size(record.height, record.width)
            except ValueError as error:
                raise ValueError(f"students.{run}.training.{error}") from None
        return self


def _with_shared(student: Any, raw: dict[str, Any]) -> Any:  # not checked yet
    if not isinstance(student, dict):
        return student
    shared = {
        section: {**raw[section], **student.get(section, {})}
        for section in ("training", "distillation")
        if isinstance(raw.get(section), dict) and isinstance(student.get(section, {}), dict)
    }
    return {**student, **shared}


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check a params file.

    Raises:
        ParamsError: with one line for every unknown key, wrong type or value out of range.
    """
    return _load(Path(path), lambda raw: raw)


def load_profile(path: Path) -> Params:
    """Read and check a profile, whose students may hold lists, as `load_params` does."""
    return _load(path, _expand)


def _expand(raw: Any) -> Any:  # not checked yet
    if not isinstance(raw, dict) or not isinstance(raw.get("students"), dict):
        return raw
    return {**raw, "students": expand_students(raw["students"])}


def _load(path: Path, complete: Callable[[Any], Any]) -> Params:
    try:
        return Params.model_validate(complete(read_yaml(path)))
    except ValidationError as error:
        lines = explain(error)
        listing = "".join(f"\n  {line}" for line in lines)
        raise ParamsError(f"{path}: {len(lines)} finding(s):{listing}") from None
    except FileNotFoundError:
        raise ParamsError(
            f"{path}: no such file; run in the project's root, or `cirkd profile use scenes`"
        ) from None
    except ValueError as error:
        raise ParamsError(f"{path}: {error}") from error


def write_params(params: Params, path: Path) -> None:
    """Write the full form of `params` (shared sections spelled out in each student)."""
    with replacing(path) as partial, partial.open("w") as file:
        YAML().dump(params.model_dump(mode="json"), file)
