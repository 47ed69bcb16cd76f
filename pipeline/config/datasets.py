"""The kinds of datasets that params.yaml may name: adding one is adding one line here.

Its module brings `Config`, its section of params.yaml; `fingerprint(dataset)`; and
`list_samples(dataset, pixels)`. It is imported when params.yaml names it.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, SerializeAsAny, model_validator

from pipeline.config.base import BaseConfig, Name, one_of

DATASETS: dict[str, str] = {
    "scenes": "pipeline.datasets.scenes.dataset",
    "camvid": "pipeline.datasets.camvid",
    "cityscapes": "pipeline.datasets.cityscapes",
    "voc": "pipeline.datasets.voc",
    "ade20k": "pipeline.datasets.ade20k",
    "coco_stuff": "pipeline.datasets.coco_stuff",
    "folder": "pipeline.datasets.folder",
    "hdf5": "pipeline.datasets.hdf5",
}

Kind = Annotated[str, one_of(DATASETS)]


class DatasetConfig(BaseConfig):
    """A dataset: what every kind's section begins with; by itself, that of a generated one."""

    kind: Kind
    name: Name


class ExternalConfig(DatasetConfig):
    """A dataset that lies at `root`, by default at artifacts/datasets/<name>.

    `unlabelled`, relative to root, is a folder of images that are distilled without any labels.
    """

    root: str
    unlabelled: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _default_root(cls, raw: Any) -> Any:  # not checked yet
        if isinstance(raw, dict) and "name" in raw:
            return {"root": f"artifacts/datasets/{raw['name']}", **raw}
        return raw


class _Kind(BaseModel):
    """The one key that says which model checks the others."""

    model_config = ConfigDict(strict=True)

    kind: Kind


def dataset_module(kind: str) -> ModuleType:
    """Import the module of a kind of datasets."""
    return import_module(DATASETS[kind])


def _read_section(raw: Any) -> Any:  # not checked yet
    if isinstance(raw, DatasetConfig):
        return raw
    return dataset_module(_Kind.model_validate(raw).kind).Config.model_validate(raw)


DatasetSection = Annotated[SerializeAsAny[DatasetConfig], BeforeValidator(_read_section)]
