import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from store.audit import audit
from store.errors import StoreDamagedError
from store.grid import nearest
from store.metrics import confusion_matrix, mean_iou, pixel_accuracy
from store.reader import Reader, open_store
from store.schema import StoreSpec
from store.writer import Writer

MakeSpec = Callable[..., StoreSpec]
MakeUnit = Callable[[StoreSpec, int], dict[str, np.ndarray]]


@pytest.fixture(params=["finished", "finished_hdf5"])
def reader(request: pytest.FixtureRequest) -> Reader:
    """The audit says the same of a store in either format."""
    return open_store(request.getfixturevalue(request.param))


def test_the_report_agrees_with_the_whole_columns(reader: Reader) -> None:
    report = json.loads(json.dumps(audit(reader), allow_nan=False))
    labels, logits = reader.column("labels"), reader.column("logits").astype(np.float32)
    matrix = confusion_matrix(labels[:, ::8, ::8], logits.argmax(axis=1), 3)
    assert report["teacher_miou"] == pytest.approx(mean_iou(matrix))
    assert report["teacher_pixel_accuracy"] == pytest.approx(pixel_accuracy(matrix))
    for k, name in enumerate(reader.spec.class_names):
        counts = report["classes"][name]
        assert counts["pixels"] == int((labels == k).sum())
        assert counts["centers"] == int((reader.column("region_pixels")[:, k] > 0).sum())
        assert counts["samples"] == int((reader.column("pixel_sample_class") == k).sum())
    assert (report["records"], report["images"], report["views"], report["units"]) == (10, 5, 2, 3)


def test_progress_counts_every_unit_verified_and_tallied(reader: Reader) -> None:
    told: list[tuple[int, int]] = []
    audit(reader, lambda done, total: told.append((done, total)))
    assert told == [(done, 2 * reader.spec.num_units) for done in range(2 * 3 + 1)]


def test_bytes_are_those_of_the_files(reader: Reader) -> None:
    report, path = audit(reader), Path(reader.path)
    if path.is_dir():
        for name, sizes in report["arrays"].items():
            files = (path / name).glob("c.*")
            assert sizes["stored_bytes"] == sum(file.stat().st_size for file in files)
    else:
        assert 0 < report["stored_bytes"] < path.stat().st_size
    assert report["arrays"]["image"]["raw_bytes"] == reader.column("image").nbytes
    assert report["arrays"]["key"]["raw_bytes"] == 10 * len("train/é0".encode())
    assert report["stored_bytes"] == sum(a["stored_bytes"] for a in report["arrays"].values())


def test_only_path_and_sizes_differ_between_formats(finished: Path, finished_hdf5: Path) -> None:
    one, other = (audit(open_store(path)) for path in (finished, finished_hdf5))
    assert {name for name in one if one[name] != other[name]} == {"path", "arrays", "stored_bytes"}


def test_a_teacher_that_is_right_scores_one_and_void_does_not_count(
    make_spec: MakeSpec, make_unit: MakeUnit, tmp_path: Path
) -> None:
    spec = make_spec()
    with Writer.open(tmp_path, spec) as writer:
        for unit in writer.missing_units():
            arrays = make_unit(spec, unit)
            arrays["labels"][:, :8] = 255
            right = nearest(arrays["labels"], 2, 4)[:, None] == np.arange(3)[:, None, None]
            arrays["logits"] = right.astype(np.float16)
            writer.write(unit, arrays)
    report = audit(open_store(tmp_path))
    assert report["teacher_miou"] == report["teacher_pixel_accuracy"] == 1.0
    assert report["void_pixels"] == 10 * 8 * 32
    assert report["classes"]["car"]["teacher_iou"] is None


@pytest.mark.parametrize("targets", [("logits",), ("features", "regions")])
def test_figures_of_targets_that_are_not_stored_do_not_exist(
    make_spec: MakeSpec, fill: Callable[..., str], tmp_path: Path, targets: tuple[str, ...]
) -> None:
    fill(tmp_path, make_spec(targets=targets))
    report = json.loads(json.dumps(audit(open_store(tmp_path)), allow_nan=False))
    assert (report["teacher_miou"] is None) == ("logits" not in targets)
    for counts in report["classes"].values():
        assert (counts["teacher_iou"] is None) == ("logits" not in targets)
        assert (counts["centers"] is None) == ("regions" not in targets)
        assert (counts["samples"] is None) == ("regions" not in targets)
    assert report["classes"]["sky"]["pixels"] > 0
    assert ("logits" in report["arrays"]) == ("logits" in targets)


def test_damage_that_a_reader_would_not_meet_is_an_error(store: Path) -> None:
    a, b = store / "image" / "c.0.0.0.0", store / "image" / "c.1.0.0.0"
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)
    reader = open_store(store)
    reader.column("image")
    with pytest.raises(StoreDamagedError, match=r"2 faults") as damage:
        audit(reader)
    assert "image/c.0.0.0.0" in str(damage.value)
    assert "image/c.1.0.0.0" in str(damage.value)


def test_the_grid_takes_the_label_where_torch_does() -> None:
    labels = np.arange(16 * 24).reshape(1, 16, 24)
    np.testing.assert_array_equal(nearest(labels, 2, 3), labels[:, ::8, ::8])
