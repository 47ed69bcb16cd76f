"""Files that earlier code wrote still open: a student, a teacher, an unfinished training.

Those in tests/fixtures were written at commit c0cff31. Of the two networks every tensor is filled
with one constant, by its position, so that files of 60 and 240 MB compress to a few kB.
"""

import lzma
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline.config.params import Params, StudentConfig
from pipeline.datasets.classes import class_table
from pipeline.distillation.objective import Objective
from pipeline.loading.batch import Batch, Targets
from pipeline.models.network import Network, Output
from pipeline.models.students import load_student
from pipeline.models.teacher import TeacherCard, load_teacher
from pipeline.runtime.rng import seed_torch, torch_generator
from pipeline.training.run import TrainingRun, run_training
from store.encodings.registry import find_encoding
from store.schema import StoreSpec

FIXTURES = Path(__file__).parent / "fixtures"
CPU = torch.device("cpu")
NUM_CLASSES, CHANNELS = 3, 8
PARTS = {"modules", "optimizer", "schedule", "average", "chance", "stopwatch", "anchors", "memory"}
TEACHER_SHA256 = "1ee054879e466ef7ab5f7d67c258b85d310e61ff2d8140e02c416ebe95130ae9"


def unpack(name: str, folder: Path) -> Path:
    path = folder / name
    folder.mkdir(exist_ok=True)
    path.write_bytes(lzma.decompress((FIXTURES / f"{name}.xz").read_bytes()))
    return path


def constant(place: int, tensor: Tensor) -> float:
    return (1 + place % 7) / 1000 if tensor.is_floating_point() else place


def check_constants(saved: dict[str, Tensor], loaded: dict[str, Tensor]) -> None:
    assert set(saved) == set(loaded)
    for place, (name, tensor) in enumerate(saved.items()):
        assert torch.equal(loaded[name], torch.full_like(tensor, constant(place, tensor))), name


def check_output(network: nn.Module, logits: float, features: float) -> None:
    """Compare the means over an image of what a network says."""
    image = torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)
    with torch.no_grad():
        output = network(image)
    assert output.logits.mean().item() == pytest.approx(logits, rel=1e-4)
    assert output.features.mean().item() == pytest.approx(features, rel=1e-4)


def test_a_student_of_before_loads_and_predicts(tmp_path: Path) -> None:
    path = unpack("student.pt", tmp_path)
    saved = torch.load(path, weights_only=True)
    assert set(saved) == {"architecture", "precision", "class_names", "state_dict"}
    assert saved["architecture"] == "deeplabv3_resnet18"
    assert saved["class_names"] == list("abcde")
    loaded = load_student(path)
    student = loaded.network
    assert loaded.precision == "float32"
    assert loaded.classes == class_table("abcde")
    assert loaded.classes.palette[:3] == ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    assert loaded.classes.label_ids == (0, 1, 2, 3, 4)
    check_constants(saved["state_dict"], student.state_dict())
    check_output(student, logits=0.0065717918, features=0.0069761686)


def test_a_teacher_of_before_and_its_card_load(tmp_path: Path) -> None:
    path = unpack("teacher.pt", tmp_path)
    saved = torch.load(path, weights_only=True)
    teacher = load_teacher(path, 5, "deeplabv3_resnet101")
    check_constants(saved["state_dict"], teacher.network.state_dict())
    check_output(teacher, logits=0.0084634088, features=0.0106707067)
    card = TeacherCard.read(FIXTURES / "teacher.json")
    assert card.architecture == "deeplabv3_resnet101"
    assert card.class_names == list("abcde")
    assert card.sha256 == TEACHER_SHA256
    assert (card.source, card.seconds) == ("train", 1.5)
    assert (card.val["miou"], card.val["iou"][-1]) == (0.5, None)
    assert card.num_parameters == sum(p.numel() for p in teacher.parameters())


class TinyStudent(Network):
    """A student's outputs and heads from three convolutions, with dropout."""

    feature_channels = 6
    stride = 8

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 9, stride=8, padding=4), nn.BatchNorm2d(6))
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Conv2d(6, NUM_CLASSES, 1)
        self.auxiliary = nn.Conv2d(6, NUM_CLASSES, 1)

    def forward(self, image: Tensor) -> Output:
        features = self.dropout(self.stem(image).relu())
        return Output(self.classifier(features), features, self.auxiliary(features))


def make_spec() -> StoreSpec:
    return StoreSpec(
        identity={},
        num_images=4,
        num_views=1,
        height=16,
        width=32,
        num_classes=NUM_CLASSES,
        feature_channels=CHANNELS,
        feature_height=2,
        feature_width=4,
        stride=8,
        sample_slots=4,
        logits_encoding=find_encoding("float32"),
        features_encoding=find_encoding("float32"),
        class_names=("sky", "road", "car"),
    )


def make_batches(steps: range) -> Iterator[Batch]:
    for step in steps:
        generator = torch_generator(0, "batch", step)

        def draw(*shape: int, high: int | None = None, of: torch.Generator = generator) -> Tensor:
            if high is None:
                return torch.rand(shape, generator=of)
            return torch.randint(high, shape, generator=of, dtype=torch.uint8)

        targets = {
            "logits": draw(2, NUM_CLASSES, 2, 4),
            "features": draw(2, CHANNELS, 2, 4),
            "region_center": nn.functional.normalize(draw(2, NUM_CLASSES, CHANNELS), dim=2),
            "region_pixels": torch.ones(2, NUM_CLASSES, dtype=torch.int32),
        }
        yield Batch(
            torch.tensor([2 * step % 4, 2 * step % 4 + 1]),
            draw(2, 3, 16, 32, high=256),
            draw(2, 16, 32, high=NUM_CLASSES),
            draw(2, 2, 4, high=NUM_CLASSES),
            torch.ones(2, 2, 4, dtype=torch.bool),
            Targets(targets),
        )


def train_tiny(run: StudentConfig, work: Path) -> tuple[Objective, list[int]]:
    """Take a CIRKD student's five steps, or go on to their end; which ones were taken here."""
    training = run.training.model_copy(update={"steps": 5, "ema_decay": 0.9})
    run = run.model_copy(update={"training": training})
    seed_torch(0, "tiny student")
    objective = Objective(TinyStudent().train(), make_spec(), run, CPU)
    taken: list[int] = []

    def open_batches(steps: range) -> Iterator[Batch]:
        for step, batch in zip(steps, make_batches(steps), strict=True):
            taken.append(step)
            yield batch

    run_training(
        TrainingRun(
            title="tiny student",
            training=training,
            modules=objective.modules,
            parts=objective.parts,
            compute_terms=objective.compute_terms,
            weights=objective.weights,
            open_batches=open_batches,
            begin=lambda: seed_torch(1, "dropout"),
            work=work,
            header={"run": "tiny"},
        ),
    )
    return objective, taken


def join_weights(state: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in state.values() if value.is_floating_point()])


def test_an_unfinished_training_of_before_goes_on_to_the_same_end(
    tiny_params: Params, tmp_path: Path
) -> None:
    run = tiny_params.students["r18_cirkd"]
    saved = torch.load(unpack("last.pt", tmp_path / "old"), weights_only=True)
    assert saved["step"] == 3
    assert set(saved["parts"]) == PARTS
    resumed, taken = train_tiny(run, tmp_path / "old")
    assert taken == [3, 4]
    train_tiny(run, tmp_path / "whole")
    ends = [torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("old", "whole")]
    for part in ("modules", "average"):
        before, one, other = (join_weights(file["parts"][part]) for file in (saved, *ends))
        # The old optimizer was not fused, and another machine rounds otherwise; a state that is not
        # put back would be as far off as the steps that are left move it.
        assert (one - other).norm() < 0.1 * (other - before).norm()
    for end in ends:
        for part in ("modules", "average", "optimizer", "stopwatch", "schedule"):
            del end["parts"][part]  # seen above; seconds; words
    # What was drawn is the same to the last bit.
    torch.testing.assert_close(*ends, rtol=1e-3, atol=1e-4)
    memory = saved["parts"]["memory"]
    assert (memory["pixels"]["records"] >= 0).any()
    moved = resumed.parts["memory"].state_dict()["pixels"]["num_pushed"]
    assert (moved > memory["pixels"]["num_pushed"]).any()
