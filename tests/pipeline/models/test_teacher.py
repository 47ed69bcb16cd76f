"""The teacher: its outputs, its sources, and weights that do not fit."""

import copy
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.config.architectures import ARCHITECTURES, Architecture
from pipeline.config.params import Params, SmallPhase, TeacherConfig
from pipeline.datasets.index import Index
from pipeline.models import network
from pipeline.models.network import Network, Output
from pipeline.models.teacher import TeacherError, build_teacher, load_teacher, save_teacher
from pipeline.runtime.checkpoint import hash_weights
from pipeline.runtime.distributed import Ranks
from pipeline.training.supervised import SupervisedTerms, crops

ARCHITECTURE = "deeplabv3_resnet101"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def settings(tiny_params: Params) -> TeacherConfig:
    return tiny_params.teacher


@pytest.fixture(scope="module")
def saved(settings: TeacherConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    return path, save_teacher(build_teacher(settings, "abcde"), path)


def test_outputs_lie_at_stride_eight(saved: tuple[Path, str]) -> None:
    teacher = load_teacher(saved[0], 5, ARCHITECTURE)
    with torch.no_grad():
        output = teacher(torch.randn(1, 3, 40, 64))
    assert output.logits.shape == (1, 5, 5, 8)
    assert output.features.shape == (1, 256, 5, 8)
    assert output.auxiliary.shape == output.logits.shape
    # The default encoding of features is unsigned: they come out of a ReLU.
    assert (output.features >= 0).all()
    assert teacher.network(torch.ones(1, 3, 32, 32))["out"].shape == (1, 5, 32, 32)


def test_same_seed_same_hash(
    settings: TeacherConfig, saved: tuple[Path, str], tmp_path: Path
) -> None:
    assert save_teacher(build_teacher(settings, "abcde"), tmp_path / "again.pt") == saved[1]
    other = build_teacher(settings.model_copy(update={"seed": 1}), "abcde")
    assert hash_weights(other.network.state_dict()) != saved[1]
    assert (tmp_path / "again.pt").read_bytes() == saved[0].read_bytes()


def test_a_checkpoint_is_a_source(settings: TeacherConfig, saved: tuple[Path, str]) -> None:
    change = {"source": "checkpoint", "checkpoint": str(saved[0]), "seed": 9}
    teacher = build_teacher(settings.model_copy(update=change), "abcde")
    assert hash_weights(teacher.network.state_dict()) == saved[1]


def test_another_class_count_is_refused(saved: tuple[Path, str]) -> None:
    with pytest.raises(TeacherError, match=r"7 classes(.|\n)*expected \(7, 256, 1, 1\)"):
        load_teacher(saved[0], 7, ARCHITECTURE)


def test_foreign_keys_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"fc.weight": torch.zeros(2)}}, tmp_path / "other.pt")
    with pytest.raises(TeacherError, match=r"missing .*\n(.|\n)* and \d+ more"):
        load_teacher(tmp_path / "other.pt", 5, ARCHITECTURE)


def test_weights_that_are_not_their_cards_are_refused(saved: tuple[Path, str]) -> None:
    """Otherwise two teachers would lead to one fingerprint."""
    assert load_teacher(saved[0], 5, ARCHITECTURE, saved[1])
    with pytest.raises(TeacherError, match=rf"expected sha256 beef, found {saved[1]}"):
        load_teacher(saved[0], 5, ARCHITECTURE, "beef")


def test_a_damaged_file_is_refused(saved: tuple[Path, str], tmp_path: Path) -> None:
    content = bytearray(saved[0].read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "teacher.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"teacher\.pt: expected weights.*dvc repro -f -s teacher"):
        load_teacher(tmp_path / "teacher.pt", 5, ARCHITECTURE)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dvc repro -f -s teacher"):
        load_teacher(tmp_path / "absent.pt", 5, ARCHITECTURE)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [("COCO", "expected one of COCO_WITH_VOC_LABELS_V1"), ("DEFAULT", "knows 21 classes")],
)
def test_published_weights_that_do_not_fit_are_refused(
    settings: TeacherConfig, weights: str, expected: str
) -> None:
    change = {"source": "torchvision", "weights": weights}
    with pytest.raises(ValueError, match=expected):
        build_teacher(settings.model_copy(update=change), "abcde")


def test_a_fresh_residual_block_is_the_identity(settings: TeacherConfig) -> None:
    teacher = build_teacher(settings, "abcde").eval()
    block = teacher.network.backbone.layer1[1]
    image = torch.rand(1, 256, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(block(image), image)


def test_crops_are_a_pure_function_of_seed_and_step(
    tiny_index: Index, settings: TeacherConfig
) -> None:
    whole = list(crops(tiny_index, settings, range(5), CPU, 0))
    rest = list(crops(tiny_index, settings, range(2, 5), CPU, 1))
    for one, other in zip(whole[2:], rest, strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.labels, other.labels)
    assert whole[0].image.shape == (2, 3, 32, 32)
    assert not torch.equal(whole[0].image, whole[3].image)


def test_the_first_steps_see_as_much_in_fewer_pixels(
    tiny_index: Index, settings: TeacherConfig
) -> None:
    phases = (SmallPhase(steps=2, factor=0.5), SmallPhase(steps=1, factor=0.75))
    growing = settings.model_copy(update={"progressive": phases})
    sizes = [tuple(b.image.shape[-2:]) for b in crops(tiny_index, growing, range(5), CPU, 0)]
    assert sizes == [(16, 16), (16, 16), (24, 24), (32, 32), (32, 32)]
    assert growing.crop_at(0).scale_max == settings.crop.scale_max / 2
    resumed = list(crops(tiny_index, growing, range(2, 5), CPU, 0))
    whole = list(crops(tiny_index, growing, range(5), CPU, 1))[2:]
    assert all(torch.equal(a.image, b.image) for a, b in zip(resumed, whole, strict=True))


def test_a_loaded_teacher_has_its_own_memory_format(
    tiny_index: Index, settings: TeacherConfig, tmp_path: Path
) -> None:
    teacher = build_teacher(settings, tiny_index.class_names)
    state = {
        name: tensor.contiguous().double() if tensor.is_floating_point() else tensor
        for name, tensor in teacher.network.state_dict().items()
    }
    torch.save({"state_dict": state}, tmp_path / "foreign.pt")
    loaded = load_teacher(tmp_path / "foreign.pt", tiny_index.num_classes, ARCHITECTURE)
    for mine, other in zip(teacher.parameters(), loaded.parameters(), strict=True):
        assert mine.dtype == other.dtype
        assert mine.stride() == other.stride()
        assert torch.equal(mine, other)
        assert other.requires_grad


def test_micro_batches_and_ranks_share_the_crops_of_a_step(
    tiny_index: Index, settings: TeacherConfig
) -> None:
    training = settings.training.model_copy(update={"batch_size": 8, "accumulate": 2})
    whole = settings.model_copy(update={"training": training.model_copy(update={"accumulate": 1})})
    (expected,) = crops(tiny_index, whole, range(1, 2), CPU, 0)
    parts = settings.model_copy(update={"training": training})
    by_rank = [list(crops(tiny_index, parts, range(1, 2), CPU, 0, Ranks(r, 2))) for r in (0, 1)]
    shared = [by_rank[rank][micro].image for micro in (0, 1) for rank in (0, 1)]
    assert torch.equal(torch.cat(shared), expected.image)


def test_both_heads_learn(tiny_index: Index, settings: TeacherConfig) -> None:
    teacher = build_teacher(settings, tiny_index.class_names).train()
    (batch,) = crops(tiny_index, settings, range(1), CPU, 0)
    terms = SupervisedTerms(teacher, "float32")(batch)
    assert set(terms) == {"task", "auxiliary"}
    sum(terms.values()).backward()
    for head in (teacher.network.classifier, teacher.network.aux_classifier):
        assert head[-1].weight.grad.abs().sum() > 0


class Windowed(Network):
    """A teacher with a buffer that no file holds."""

    stride, feature_channels = 8, 4

    def __init__(self, encoder: str, num_classes: int, encoder_weights: str) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 9, stride=8, padding=4)
        self.classifier = nn.Conv2d(4, num_classes, 1)
        self.register_buffer("window", torch.linspace(0.5, 1.5, 4).view(1, 4, 1, 1), False)

    def forward(self, image: torch.Tensor) -> Output:
        features = self.body(image).relu() * self.window
        logits = self.classifier(features)
        return Output(logits, features, logits)


def test_what_no_file_holds_is_computed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCHITECTURES, "windowed", Architecture("Windowed", "unused:unused", ""))
    monkeypatch.setattr(network, "resolve_name", lambda builder: Windowed)
    teacher = network.build_network("windowed", 5).eval()
    save_teacher(teacher, tmp_path / "teacher.pt")
    loaded = load_teacher(tmp_path / "teacher.pt", 5, "windowed")
    image = torch.randn(1, 3, 16, 24)
    assert torch.equal(loaded(image).logits, teacher(image).logits)


def test_a_teacher_is_averaged_down_to_the_declared_stride(
    settings: TeacherConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCHITECTURES, "windowed", Architecture("Windowed", "unused:unused", ""))
    monkeypatch.setattr(network, "resolve_name", lambda builder: Windowed)
    fine = build_teacher(settings.model_copy(update={"architecture": "windowed"}), "abcde")
    assert isinstance(fine, Windowed)
    save_teacher(fine, tmp_path / "fine.pt")
    change = {"source": "checkpoint", "checkpoint": str(tmp_path / "fine.pt"), "stride": 16}
    change["architecture"] = "windowed"
    coarse = build_teacher(settings.model_copy(update=change), "abcde")
    sha256 = save_teacher(coarse, tmp_path / "coarse.pt")
    assert sha256 == hash_weights(fine.state_dict())
    loaded = load_teacher(tmp_path / "coarse.pt", 5, "windowed", sha256, 16)
    image = torch.randn(2, 3, 32, 48)
    assert (loaded.architecture, loaded.stride, loaded.feature_channels) == ("windowed", 16, 4)
    for one, other in zip(loaded(image), fine(image), strict=True):
        means = other.unflatten(3, (3, 2)).unflatten(2, (2, 2)).mean(dim=(3, 5))
        torch.testing.assert_close(one, means)
    crop = torch.zeros(1, 3, 40, 40)
    assert loaded(crop).logits.shape == (1, 5, 3, 3)
    assert build_teacher(settings.model_copy(update={**change, "stride": 8}), "abcde").stride == 8
    # A moving average of its weights is a copy of it.
    assert copy.deepcopy(coarse).stride == 16
    with pytest.raises(ValueError, match=r"a multiple of 8, .*windowed; found 12"):
        build_teacher(settings.model_copy(update={**change, "stride": 12}), "abcde")


SMALL = "deeplabv3_mobilenet_v3_large"


def users_checkpoint(settings: TeacherConfig, path: Path) -> TeacherConfig:
    change = {"source": "checkpoint", "checkpoint": str(path), "architecture": SMALL}
    return settings.model_copy(update=change)


@pytest.mark.parametrize("kind", ["bare", "model", "state_dict", "module", "safetensors"])
def test_a_users_checkpoint_is_read_as_training_programs_write_it(
    kind: str, settings: TeacherConfig, tmp_path: Path
) -> None:
    """Also one without an auxiliary head, or half as precise."""
    path = tmp_path / ("user.safetensors" if kind == "safetensors" else "user.pth")
    state = network.build_network(SMALL, 5).weights.state_dict()
    if kind == "safetensors":
        halves = {key: x.half() if x.is_floating_point() else x for key, x in state.items()}
        state = {key: x.contiguous() for key, x in halves.items()}
        save_file(state, path)
    elif kind == "module":
        torch.save({"model": {f"module.{key}": x for key, x in state.items()}, "epoch": 3}, path)
    elif kind == "bare":
        state = {key: x for key, x in state.items() if not key.startswith("aux_classifier.")}
        torch.save(state, path)
    else:
        torch.save({kind: state, "epoch": 3}, path)
    teacher = build_teacher(users_checkpoint(settings, path), "abcde")
    found = teacher.weights.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(x, state[key].to(x.dtype)) for key, x in found.items())
    assert teacher.has_auxiliary == (kind != "bare")
    save_teacher(teacher, tmp_path / "teacher.pt")
    assert load_teacher(tmp_path / "teacher.pt", 5, SMALL).has_auxiliary == (kind != "bare")


class Code:
    """An object whose unpickling leaves a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_checkpoint_runs_no_code(settings: TeacherConfig, tmp_path: Path) -> None:
    torch.save({"state_dict": Code(tmp_path / "PWNED")}, tmp_path / "user.pth")
    with pytest.raises(ValueError, match=r"user\.pth: expected weights of a teacher"):
        build_teacher(users_checkpoint(settings, tmp_path / "user.pth"), "abcde")
    assert not (tmp_path / "PWNED").exists()


def test_a_checkpoint_of_other_classes_says_how_many(
    settings: TeacherConfig, tmp_path: Path
) -> None:
    torch.save(network.build_network(SMALL, 19).weights.state_dict(), tmp_path / "citys.pth")
    with pytest.raises(TeacherError, match=r"citys\.pth is no .* for 5 classes \(it has 19\)"):
        build_teacher(users_checkpoint(settings, tmp_path / "citys.pth"), "abcde")
