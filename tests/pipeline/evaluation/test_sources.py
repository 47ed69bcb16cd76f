"""Sources: what somebody names is what is predicted, once each, in the order of its numbers."""

from pathlib import Path

import pytest

from pipeline.evaluation.sources import list_sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("in/f_10.png", "in/f_9.png", "in/sub/f_1.JPG", "in/notes.md", "one.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_a_folder_gives_its_images_in_the_order_of_numbers(folder: Path) -> None:
    found = list_sources([str(folder / "in")])
    assert [*found] == ["f_9", "f_10", "sub/f_1"]
    assert found["sub/f_1"] == folder / "in/sub/f_1.JPG"


def test_a_pattern_keeps_the_folders_below_its_first_wildcard(folder: Path) -> None:
    assert [*list_sources([str(folder / "in/**/*.*[gG]")])] == ["f_9", "f_10", "sub/f_1"]
    assert [*list_sources([str(folder / "*" / "f_9.png")])] == ["in/f_9"]


def test_a_list_is_relative_to_itself(folder: Path) -> None:
    (folder / "list.txt").write_text(f"in/sub/f_1.JPG\n\n{folder}/one.png\n../x/y.png\n")
    found = list_sources([str(folder / "list.txt")])
    assert {name: path.name for name, path in found.items()} == {
        "in/sub/f_1": "f_1.JPG",
        "one": "one.png",
        "y": "y.png",  # nothing is written outside the folder
    }


def test_an_image_named_twice_is_predicted_once(folder: Path) -> None:
    assert [*list_sources([str(folder / "one.png"), str(folder / "one.png")])] == ["one"]


def test_what_names_no_image_is_refused(folder: Path) -> None:
    for source in ("none.png", "*.tif", "empty"):
        (folder / "empty").mkdir(exist_ok=True)
        with pytest.raises(FileNotFoundError, match="no image"):
            list_sources([str(folder / source)])


def test_one_name_for_two_images_is_refused(folder: Path) -> None:
    (folder / "in/one.jpg").touch()
    with pytest.raises(ValueError, match="would both be written as one"):
        list_sources([str(folder / "one.png"), str(folder / "in/one.jpg")])


def test_results_among_the_images_are_no_images(folder: Path) -> None:
    source, made = str(folder / "in"), folder / "in/sub"
    assert [*list_sources([source], made)] == ["f_9", "f_10"]
    assert [*list_sources([f"{source}/**/*.*[gG]"], made)] == ["f_9", "f_10"]
    assert [*list_sources([str(made)], made)] == ["f_1"]
