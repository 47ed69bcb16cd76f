"""Extraction: stored is what the teacher says, whatever the interruptions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from official_layouts import make_ade20k
from tiny_networks import TinyTeacher

from pipeline.config.params import Params, StoreConfig
from pipeline.datasets.ade20k import Config as Ade20kConfig
from pipeline.datasets.index import Index, read_labels
from pipeline.datasets.prepare import prepare_dataset
from pipeline.datasets.views import PADDING_COLOUR, TABLE, View
from pipeline.extraction.extract import build_unit, extract
from pipeline.extraction.job import Extraction, plan_store
from pipeline.extraction.records import draw_records
from pipeline.extraction.targets import forward_teacher
from pipeline.models.network import Network
from pipeline.ops.embedding import embed
from pipeline.ops.regions import region_centers
from store.errors import StoreMismatchError
from store.grid import nearest
from store.reader import Reader, open_store
from store.schema import array_specs, target_arrays
from store.writer import Writer

CPU = torch.device("cpu")


@pytest.fixture
def settings(tiny_params: Params) -> StoreConfig:
    return tiny_params.store.model_copy(update={"num_views": 3})


class CountingTeacher(Network):
    """Counts the images that go through the teacher."""

    def __init__(self, teacher: torch.nn.Module) -> None:
        super().__init__()
        self.teacher, self.images = teacher, 0

    def forward(self, image: torch.Tensor):
        self.images += len(image)
        return self.teacher(image)


def all_arrays(path: Path) -> dict[str, np.ndarray]:
    reader = open_store(path)
    return reader.read(slice(None), list(reader.arrays))


def test_stopped_and_resumed_equals_uninterrupted(
    tiny_job, tiny_teacher, settings: StoreConfig, tmp_path: Path
) -> None:
    job, whole, parts = tiny_job(settings), tmp_path / "whole", tmp_path / "parts"
    with Writer.open(whole, job.spec) as writer:
        assert extract(job, writer)
        one = writer.finish()
    teacher = CountingTeacher(tiny_teacher)
    counting = tiny_job(settings, teacher)
    for _ in range(job.spec.num_units - 1):
        answers = iter([True, False])
        with Writer.open(parts, job.spec) as writer:
            assert not extract(counting, writer, keep_going=lambda answers=answers: next(answers))
    with Writer.open(parts, job.spec) as writer:
        assert extract(counting, writer)
        other = writer.finish()
    assert one.digest == other.digest
    # Finished units are skipped before the teacher: no image went through it twice.
    assert teacher.images == job.spec.num_records
    left, right = all_arrays(whole), all_arrays(parts)
    for name in left:
        np.testing.assert_array_equal(left[name], right[name])


def test_overlapping_writes_what_building_a_unit_gives(
    tiny_job, settings: StoreConfig, tmp_path: Path
) -> None:
    job = tiny_job(settings)
    with Writer.open(tmp_path / "store", job.spec) as writer:
        for unit in writer.missing_units():
            writer.write(unit, build_unit(job, unit))
        one = writer.finish()
    with Writer.open(tmp_path / "other", job.spec) as writer:
        extract(job, writer)
        assert writer.finish().digest == one.digest


def test_a_failing_teacher_fails_the_extraction(
    tiny_job, settings: StoreConfig, tmp_path: Path
) -> None:
    class Broken(Network):
        def forward(self, image: torch.Tensor):
            raise RuntimeError("out of memory")

    job = tiny_job(settings, Broken())
    with (
        Writer.open(tmp_path / "store", job.spec) as writer,
        pytest.raises(RuntimeError, match="out of memory"),
    ):
        extract(job, writer)


def test_records_are_views_by_image(
    tiny_index: Index, settings: StoreConfig, tiny_store: Reader
) -> None:
    samples = tiny_index.splits["train"]
    arrays = draw_records(tiny_index, settings, range(4, 9))
    assert arrays["view_index"].tolist() == [0, 0, 1, 1, 1]
    wanted = [samples[place].key for place in (4, 5, 0, 1, 2)]
    assert arrays["key"].tolist() == wanted
    assert set(tiny_store.arrays) == set(array_specs(tiny_store.spec))


def test_views_differ_and_the_first_ones_stay(tiny_index: Index, settings: StoreConfig) -> None:
    count = len(tiny_index.splits["train"])
    arrays = draw_records(tiny_index, settings, range(3 * count))
    images = arrays["image"].reshape(3, count, -1)
    assert not np.array_equal(images[0], images[1])
    more = settings.model_copy(update={"num_views": 5})
    np.testing.assert_array_equal(
        draw_records(tiny_index, more, range(count))["image"], arrays["image"][:count]
    )


def test_stored_targets_are_the_online_ones(
    tiny_job, tiny_params: Params, tiny_store: Reader
) -> None:
    job, records = tiny_job(tiny_params.store), range(4)
    images = draw_records(job.index, job.settings, records)["image"]
    online = forward_teacher(job, images)
    stored = tiny_store.read(records, list(tiny_store.arrays))
    for name, expected in (("logits", online.logits), ("features", online.features)):
        error = np.abs(tiny_store.decode(name, stored) - expected.numpy())
        encoding = getattr(tiny_store.spec, f"{name}_encoding")
        assert (error <= encoding.max_error(expected.numpy()) * (1 + 1e-5)).all()
    labels = torch.from_numpy(nearest(stored["labels"], 4, 4))
    centers, pixels = region_centers(embed(online.features), labels, tiny_store.spec.num_classes)
    np.testing.assert_array_equal(stored["region_pixels"], pixels.numpy())
    np.testing.assert_allclose(stored["region_center"], centers.numpy(), atol=1e-3)


def test_pixel_samples_belong_to_their_class(tiny_store: Reader) -> None:
    stored = tiny_store.read(slice(None), list(tiny_store.arrays))
    features = torch.from_numpy(tiny_store.decode("features", stored))
    grid = nearest(stored["labels"], *features.shape[-2:])
    embeddings = embed(features).numpy()
    checked = 0
    for n in range(len(tiny_store)):
        for sample, number in zip(
            stored["pixel_sample"][n], stored["pixel_sample_class"][n], strict=True
        ):
            if number == 255:
                assert not sample.any()
                continue
            own = embeddings[n][:, grid[n] == number]
            assert (own.T @ sample.astype(np.float32)).max() > 0.999
            checked += 1
    assert checked > 20


def test_a_store_of_another_teacher_is_refused(
    tiny_index: Index, tiny_teacher, settings: StoreConfig, tmp_path: Path
) -> None:
    spec = plan_store(tiny_index, settings, tiny_teacher, "one teacher", CPU)
    with Writer.open(tmp_path / "store", spec):
        pass
    other = plan_store(tiny_index, settings, tiny_teacher, "another teacher", CPU)
    with (
        pytest.raises(StoreMismatchError, match=r"teacher\.sha256"),
        Writer.open(tmp_path / "store", other),
    ):
        pass


@pytest.mark.parametrize(
    "change",
    [{"num_views": 2}, {"seed": 1}, {"precision": "bfloat16"}, {"samples_per_class": 9}],
)
def test_what_changes_the_content_changes_the_fingerprint(
    tiny_index: Index, tiny_teacher, tiny_params: Params, change: dict
) -> None:
    settings = tiny_params.store
    before = plan_store(tiny_index, settings, tiny_teacher, "t", CPU).fingerprint
    changed = settings.model_copy(update=change)
    assert plan_store(tiny_index, changed, tiny_teacher, "t", CPU).fingerprint != before
    assert plan_store(tiny_index, settings, tiny_teacher, "u", CPU).fingerprint != before


def test_the_fingerprint_of_a_store_of_every_target_is_what_it_ever_was(
    tiny_index: Index, tiny_teacher, tiny_params: Params
) -> None:
    settings = tiny_params.store
    identity = plan_store(tiny_index, settings, tiny_teacher, "t", CPU).identity
    assert set(identity) == {
        "schema_version", "dataset", "teacher", "views", "encodings", "precision", "unit_size"
    }  # fmt: skip
    part = settings.model_copy(update={"targets": ("logits",)})
    assert plan_store(tiny_index, part, tiny_teacher, "t", CPU).identity == {
        **identity,
        "targets": ["logits"],
    }


@pytest.mark.parametrize("targets", [("logits",), ("features", "regions")])
def test_a_store_of_some_targets_holds_them_as_the_whole_one_does(
    tiny_params: Params, tiny_store: Reader, build_store, targets: tuple[str, ...]
) -> None:
    part = build_store(tiny_params.store.model_copy(update={"targets": targets}))
    arrays = target_arrays(tiny_store.spec)
    absent = {array for name, of in arrays.items() if name not in targets for array in of}
    assert set(part.arrays) == set(tiny_store.arrays) - absent
    for name in part.arrays:
        np.testing.assert_array_equal(part.column(name), tiny_store.column(name))


@pytest.mark.parametrize("change", [{"threads": 7}, {"name": "elsewhere"}])
def test_what_leaves_the_content_leaves_the_fingerprint(
    tiny_index: Index, tiny_teacher, tiny_params: Params, change: dict
) -> None:
    settings = tiny_params.store
    before = plan_store(tiny_index, settings, tiny_teacher, "t", CPU).fingerprint
    changed = settings.model_copy(update=change)
    assert plan_store(tiny_index, changed, tiny_teacher, "t", CPU).fingerprint == before


def test_labels_are_the_datasets(tiny_index: Index, tiny_store: Reader) -> None:
    everything = [read_labels(tiny_index, sample).ravel() for sample in tiny_index.splits["train"]]
    assert np.isin(tiny_store.column("labels"), [*np.concatenate(everything), 255]).all()


def test_another_version_of_the_code_makes_another_store_and_the_first_changes_no_fingerprint(
    tiny_job, settings: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tiny_job(settings).spec
    assert "extraction_version" not in first.identity
    monkeypatch.setattr("pipeline.extraction.job.EXTRACTION_VERSION", 2)
    second = tiny_job(settings).spec
    assert second.identity == {**first.identity, "extraction_version": 2}
    assert second.fingerprint != first.fingerprint


def test_images_smaller_than_the_crop_are_stored_with_padding(
    settings: StoreConfig, tmp_path: Path
) -> None:
    section = make_ade20k(tmp_path / "ade20k", size=(12, 20))
    index = prepare_dataset(Ade20kConfig.model_validate(section), "", tmp_path / "pixels")
    teacher = TinyTeacher(index.num_classes)
    spec = plan_store(index, settings, teacher, "tiny teacher", CPU)
    with Writer.open(tmp_path / "store", spec) as writer:
        assert extract(Extraction(index, teacher, settings, spec, CPU), writer)
        writer.finish()
    arrays = all_arrays(tmp_path / "store")
    for n in range(len(arrays["key"])):
        view = View(*(arrays[name][n] for name in TABLE))
        valid = view.valid()
        assert 0 < valid.sum() < valid.size
        assert (arrays["labels"][n][~valid] == 255).all()
        assert (arrays["labels"][n][valid] < 150).any()
        assert (arrays["image"][n].transpose(1, 2, 0)[~valid] == PADDING_COLOUR).all()
