"""Embeddings for the page: similarities survive being stored small, classes are drawn alike."""

import base64
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_pages import GRID, see

from pipeline.config.params import Params
from pipeline.report import embeddings
from pipeline.report.embeddings import compress, draw_space, sample_maps
from pipeline.report.results import gather
from store.grid import nearest
from store.schema import VOID


def unit(cells: np.ndarray) -> np.ndarray:
    return cells / np.linalg.norm(cells, axis=0)


def test_similarities_survive() -> None:
    """48 channels that lie along 12 directions but for a little."""
    random = np.random.default_rng(0)
    mix = random.standard_normal((48, 12)) @ random.standard_normal((12, 60))
    cells = unit(mix + 0.05 * random.standard_normal((48, 60))).astype(np.float32)
    stored = compress(cells.reshape(48, 6, 10))
    assert (stored["height"], stored["width"]) == (6, 10)
    assert 0.99 < stored["kept"] < 1
    values = np.frombuffer(base64.b64decode(stored["values"]), np.int8).reshape(-1, 60)
    assert len(values) == embeddings.DIRECTIONS
    back = unit(values * np.array(stored["scales"])[:, None])
    assert np.abs(back.T @ back - cells.T @ cells).max() < 0.02


def test_fewer_channels_than_directions_are_kept_whole() -> None:
    stored = compress(unit(np.random.default_rng(0).random((3, 4))).reshape(3, 2, 2))
    assert len(stored["scales"]) == 3
    assert stored["kept"] == pytest.approx(1)


def test_maps_hold_labels_at_their_grid(profile: Path, params: Params) -> None:
    one = see(gather(profile, params), noise=0.1)[0]
    found = sample_maps(one, ["teacher", "r18_ce"])
    labels = np.frombuffer(base64.b64decode(found["labels"]["values"]), np.uint8)
    assert (labels.reshape(GRID) == nearest(one.labels, *GRID)).all()
    assert [map["name"] for map in found["maps"]] == ["teacher", "r18_ce"]


def test_space_is_the_same_again_and_keeps_classes_apart(
    profile: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "MOST_POINTS", 60)
    results = gather(profile, params)
    near, far = (draw_space("teacher", see(results, noise)) for noise in (0.2, 0.8))
    assert near is not None
    assert far is not None
    assert np.bincount(near.classes).tolist() == [30, 30]  # of 72 and 48 labelled cells
    assert near.silhouette > far.silhouette + 0.2
    again = draw_space("teacher", see(results, 0.2))
    assert again is not None
    assert (again.points == near.points).all()
    # Two classes that lie apart do so in the layout.
    centers = [near.points[near.classes == k].mean(axis=0) for k in (0, 1)]
    reach = max(near.points[near.classes == k].std(axis=0).max() for k in (0, 1))
    assert np.linalg.norm(centers[0] - centers[1]) > 2 * reach


def test_too_few_or_equal_points_have_no_space(profile: Path, params: Params) -> None:
    shown = see(gather(profile, params))
    assert draw_space("teacher", shown) is None
    unlabelled = [replace(one, labels=np.full_like(one.labels, VOID)) for one in shown]
    assert draw_space("teacher", unlabelled) is None
