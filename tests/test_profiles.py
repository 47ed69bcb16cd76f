"""The profiles of the paper's datasets, stage by stage, on miniatures of their official layouts."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import official_layouts
import pytest
import torch
from click.testing import CliRunner
from ruamel.yaml import YAML
from torchvision.models.segmentation import DeepLabV3_ResNet101_Weights, deeplabv3_resnet101

from pipeline.config.params import load_profile
from stages.cli import main

ROOT = Path(__file__).parents[1]
PAPER = ("camvid", "voc", "cityscapes", "ade20k", "coco_stuff")
CROP = {"height": 32, "width": 48, "scale_min": 0.5, "scale_max": 2.0, "flip_probability": 0.5}
SMALL = {"steps": 2, "batch_size": 2, "checkpoint_every": 100}
SMALL_MEMORY = {
    "pixel_queue": 60,
    "region_queue": 20,
    "pixel_contrast": 64,
    "region_contrast": 64,
    "pixels_per_class": 2,
}


def miniature(name: str, root: Path) -> dict[str, Any]:
    """A profile on a few small images, two steps each, without weights to download.

    Of the runs those of the first seed stay, and of the networks beside the first those without
    and with CIRKD: the others differ in what has run by then.
    """
    raw = load_profile(ROOT / f"profiles/{name}.yaml").model_dump(mode="json")
    asked = raw["dataset"]
    options = {"augmented": True} if asked.get("augmented") else {}
    layout = getattr(official_layouts, f"make_{asked['kind']}")(root, **options)
    raw["dataset"] = {**asked, "root": layout["root"]}
    raw["teacher"]["crop"] = raw["store"]["crop"] = CROP
    raw["teacher"]["training"] |= SMALL
    if raw["teacher"]["source"] == "train":
        raw["teacher"]["backbone"] = "none"
    raw["store"] |= {"unit_size": 4, "forward_batch": 2, "samples_per_class": 2, "threads": 1}
    first = next(iter(raw["students"].values()))["architecture"]
    raw["students"] = {
        run: {
            **student,
            "encoder_weights": "none",
            "training": student["training"] | SMALL,
            "distillation": student["distillation"] | SMALL_MEMORY,
        }
        for run, student in raw["students"].items()
        if student["seed"] == 0
        and (student["architecture"] == first or student["method"] in ("ce", "cirkd"))
    }
    return raw


def put_into_cache(name: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put random weights where a download of torchvision's would put them, under their hash."""
    size = {"weights": None, "weights_backbone": None, "num_classes": 21, "aux_loss": True}
    content = io.BytesIO()
    torch.save(deeplabv3_resnet101(**size).state_dict(), content)
    digest = hashlib.sha256(content.getvalue()).hexdigest()[:8]
    cache.mkdir(parents=True)
    (cache / f"random-{digest}.pth").write_bytes(content.getvalue())
    published = DeepLabV3_ResNet101_Weights[name].value
    monkeypatch.setattr(published, "url", f"http://127.0.0.1:9/random-{digest}.pth")


def stage(*words: str) -> str:
    done = CliRunner().invoke(main, list(words), catch_exceptions=False)
    assert done.exit_code == 0, f"{' '.join(words)}: {done.output}"
    return done.output


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER)
def test_a_profile_runs_on_a_miniature_of_its_dataset(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("CIRKD_WORKERS", "0")
    raw = miniature(name, tmp_path / "data")
    # What is shared would be an alias.
    YAML().dump(json.loads(json.dumps(raw)), tmp_path / "params.yaml")
    if raw["teacher"]["source"] == "torchvision":
        put_into_cache(raw["teacher"]["weights"], tmp_path / "torch/hub/checkpoints", monkeypatch)
    index = f"artifacts/datasets/{name}/index.json"
    teacher, manifest = f"artifacts/teachers/{name}.pt", f"artifacts/manifests/{name}.json"
    job = (index, teacher, manifest)
    stage("fingerprint", "artifacts/fingerprint.json", "artifacts/weights.json")
    stage("prepare", "artifacts/fingerprint.json", f"artifacts/datasets/{name}")
    stage("teacher", index, teacher)
    stage("extract", *job)
    stage("audit", *job, f"artifacts/manifests/{name}.audit.json")
    assert len(raw["students"]) == 7 + 2 + 2
    for run in raw["students"]:
        folder = f"artifacts/profiles/{name}/students/{run}"
        stage("train", run, manifest, folder)
        stage("evaluate", index, f"{folder}/model.pt", f"{folder}/evaluation.json")
    stage("report", f"artifacts/profiles/{name}")
    assert f"| {name} |" in stage("leaderboard", "--markdown")
    if name == PAPER[0]:
        first = next(iter(raw["students"]))
        assert "extraction" in stage("store", "plan", first)
