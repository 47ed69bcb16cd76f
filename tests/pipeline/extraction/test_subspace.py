"""Features by their coordinates in a subspace: its basis, what the store holds, what terms get."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pipeline.benchmarks.online import online_batch
from pipeline.config.architectures import ARCHITECTURES, Architecture
from pipeline.config.methods import TERMS
from pipeline.config.params import (
    Encodings,
    Params,
    StoreConfig,
    StudentConfig,
    Subspace,
    write_params,
)
from pipeline.datasets.index import Index
from pipeline.distillation.objective import Objective
from pipeline.distillation.requirements import check_requirements
from pipeline.extraction.basis import find_basis, first_pass, similarity_loss, with_basis
from pipeline.extraction.extract import extract
from pipeline.extraction.job import Extraction
from pipeline.extraction.spot_check import spot_check_store
from pipeline.extraction.subspace_network import SubspaceNetwork
from pipeline.loading.stream import LoaderConfig, stream
from pipeline.losses import at, dsd, ifvd
from pipeline.models.network import Network, Output, build_network
from pipeline.models.teacher import TeacherCard, build_teacher, save_teacher
from pipeline.ops.attention_map import power
from pipeline.ops.subspace import lift, project
from pipeline.runtime.rng import seed_torch
from stages.cli import main
from store.errors import StoreMismatchError
from store.files import write_json
from store.hdf5 import from_hdf5, to_hdf5
from store.manifest import Manifest
from store.reader import Reader, open_store
from store.schema import StoreSpec
from store.writer import Writer

CPU = torch.device("cpu")
EXACT = Encodings(logits="float16", features="float32")
Build = Callable[[StoreConfig], Extraction]
Extracted = tuple[Extraction, Reader]
Extract = Callable[[Extraction], Extracted]


class CountingTeacher(Network):
    """Counts the images that go through the teacher."""

    architecture = "deeplabv3_resnet101"
    stride, feature_channels = 8, 256

    def __init__(self, teacher: Network) -> None:
        super().__init__()
        self.teacher, self.images = teacher, 0

    def forward(self, image: Tensor) -> Output:
        self.images += len(image)
        output: Output = self.teacher(image)
        return output


def asked(params: Params, num_views: int = 3, **subspace: object) -> StoreConfig:
    given = Subspace.model_validate({"encoding": "subspace", "fit_views": 8} | subspace)
    encodings = Encodings(logits="float16", features=given)
    changes = {"encodings": encodings, "unit_size": 2, "num_views": num_views}
    return params.store.model_copy(update=changes)


def silent(done: int, total: int) -> None:
    """Show nothing."""


def in_subspace(job: Extraction) -> Extraction:
    with TemporaryDirectory() as folder:
        return with_basis(job, find_basis(job, Path(folder), silent))


@pytest.fixture(scope="module")
def extract_to(tmp_path_factory: pytest.TempPathFactory) -> Extract:
    """Make the store of an extraction."""

    def run(job: Extraction) -> Extracted:
        path = tmp_path_factory.mktemp("subspace") / "store"
        with Writer.open(path, job.spec) as writer:
            assert extract(job, writer)
            writer.finish()
        return job, open_store(path, expected=job.spec.fingerprint)

    return run


@pytest.fixture(scope="module")
def subspace_job(tiny_job: Build, tiny_params: Params) -> Extraction:
    return in_subspace(tiny_job(asked(tiny_params, rank=64)))


@pytest.fixture(scope="module")
def subspace_store(subspace_job: Extraction, extract_to: Extract) -> Reader:
    return extract_to(subspace_job)[1]


def basis_of(job: Extraction) -> Tensor:
    assert isinstance(job.teacher, SubspaceNetwork)
    return job.teacher.basis


def test_the_basis_is_orthonormal_and_part_of_the_identity(
    subspace_job: Extraction, tiny_job: Build, tiny_params: Params
) -> None:
    basis, spec = basis_of(subspace_job), subspace_job.spec
    assert basis.shape == (256, 64)
    torch.testing.assert_close(basis.mT @ basis, torch.eye(64), atol=1e-5, rtol=0)
    np.testing.assert_array_equal(spec.basis_matrix, basis.numpy())
    assert (spec.feature_channels, spec.teacher_channels) == (64, 256)
    again = in_subspace(tiny_job(asked(tiny_params, rank=64)))
    assert again.spec == spec
    other = in_subspace(tiny_job(asked(tiny_params, rank=64, fit_views=10)))
    assert other.spec.identity["teacher"]["basis"] != spec.identity["teacher"]["basis"]
    assert tiny_job(tiny_params.store).spec.basis == ""
    assert StoreSpec.from_dict(spec.to_dict()) == spec


def test_a_first_pass_that_is_stopped_goes_on_where_it_was(
    tiny_job: Build, tiny_teacher: Network, tiny_params: Params, tmp_path: Path
) -> None:
    teacher = CountingTeacher(tiny_teacher)
    job = tiny_job(asked(tiny_params, rank=16), teacher)

    def stop_at(stop: int) -> Callable[[int, int], None]:
        def show(done: int, total: int) -> None:
            if done == stop:
                raise KeyboardInterrupt

        return show

    for stop in (4, 6):
        with pytest.raises(KeyboardInterrupt):
            find_basis(job, tmp_path, stop_at(stop))
    seen: list[tuple[int, int]] = []
    basis = find_basis(job, tmp_path, lambda done, total: seen.append((done, total)))
    assert seen == [(6, 8), (8, 8)]
    resumed = first_pass(job, 8, tmp_path / "seen.npz", silent)
    whole = first_pass(tiny_job(job.settings), 8, None, silent)
    for found, expected in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(found, expected)
    # Another rank of the same views costs the teacher nothing.
    find_basis(tiny_job(asked(tiny_params, rank=8), teacher), tmp_path, silent)
    np.testing.assert_array_equal(find_basis(job, tmp_path, silent), basis)
    assert teacher.images == 8
    (tmp_path / "rank-16.npy").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"expected a basis; .*remove it"):
        find_basis(job, tmp_path, silent)


def test_a_tolerance_picks_the_least_rank_that_keeps_it(
    tiny_job: Build, tiny_params: Params
) -> None:
    for tolerated in (1e-2, 1e-3):
        job = in_subspace(tiny_job(asked(tiny_params, max_kl=tolerated)))
        rank = job.spec.feature_channels
        _, judged = first_pass(tiny_job(job.settings), 8, None, silent)
        basis = job.spec.basis_matrix
        assert similarity_loss(basis, judged) <= tolerated
        assert rank == 8 or similarity_loss(basis[:, : rank - 8], judged) > tolerated
        assert similarity_loss(basis, judged, encode=False) < similarity_loss(basis, judged)
    with pytest.raises(ValueError, match=r"max_kl: similarities diverge by .* with all 256"):
        in_subspace(tiny_job(asked(tiny_params, max_kl=1e-12)))
    with pytest.raises(ValueError, match=r"rank: expected at most 256, .* found 300"):
        in_subspace(tiny_job(asked(tiny_params, rank=300)))


def test_rank_and_tolerance_exclude_each_other() -> None:
    for given_values in ({}, {"rank": 8, "max_kl": 1e-3}):
        with pytest.raises(ValueError, match="give a rank, or max_kl"):
            Subspace.model_validate({"encoding": "subspace", **given_values})


def test_the_store_keeps_the_similarities_in_a_quarter_of_the_channels(
    subspace_job: Extraction, subspace_store: Reader
) -> None:
    shapes = {name: array.record_shape for name, array in subspace_store.arrays.items()}
    assert shapes["features"][0] == shapes["region_center"][1] == shapes["pixel_sample"][1] == 64
    found = spot_check_store(subspace_job, subspace_store, 4)
    assert 1e-4 < found["similarity_kl"] < 1e-2
    # What the subspace loses is in the figure, not what the encoding loses alone.
    assert 0.99 < found["features_cosine"] < 0.999


def test_coordinates_and_back_is_the_projection(subspace_job: Extraction) -> None:
    basis, features = basis_of(subspace_job), torch.randn(2, 256, 3, 5)
    found = lift(project(features, basis), basis)
    expected = torch.einsum("ij,bjhw->bihw", basis @ basis.mT, features)
    torch.testing.assert_close(found, expected)
    assert lift(features, None) is features


def test_hdf5_keeps_the_basis(subspace_store: Reader, tmp_path: Path) -> None:
    to_hdf5(subspace_store.path, tmp_path / "store.h5")
    assert open_store(tmp_path / "store.h5").spec == subspace_store.spec
    from_hdf5(tmp_path / "store.h5", tmp_path / "copy")
    assert open_store(tmp_path / "copy").spec == subspace_store.spec


def test_a_basis_that_does_not_fit_is_refused(subspace_job: Extraction) -> None:
    described = subspace_job.spec.to_dict()
    with pytest.raises(StoreMismatchError, match="basis does not fit the features"):
        StoreSpec.from_dict(described | {"feature_channels": 256 * 64})
    with pytest.raises(StoreMismatchError, match="basis is too large"):
        StoreSpec.from_dict(described | {"basis": "A" * (2**23 + 4)})


def test_a_teacher_of_other_channels_is_refused(
    tiny_job: Build, tiny_params: Params, subspace_job: Extraction
) -> None:
    job = tiny_job(asked(tiny_params, rank=64))
    with pytest.raises(ValueError, match=r"a basis of 100 channels; .* have 256"):
        with_basis(job, subspace_job.spec.basis_matrix[:100])


def terms_of(
    reader: Reader, job: Extraction, params: Params, term: str, online: bool
) -> tuple[float, float]:
    """Return a term of a batch of the store, or of the live teacher, and its gradient's length."""
    raw = params.students["r18_ce"].model_dump() | {"method": None, "terms": {term: 1.0}}
    config = StudentConfig.model_validate(raw)
    seed_torch(0, "test")
    student = build_network(config.architecture, reader.spec.num_classes).train()
    objective = Objective(student, reader.spec, config, CPU)
    objective.fill(reader)
    (batch,) = stream(reader, LoaderConfig(0, 2), range(1), CPU)
    if online:
        batch = online_batch(job, batch.record.tolist())
    value = objective.compute_terms(batch)[term]
    value.backward()
    gradients = [p.grad.square().sum() for p in student.parameters() if p.grad is not None]
    return value.item(), torch.stack(gradients).sum().sqrt().item()


SIMILAR = [
    name for name, term in TERMS.items() if "features" in term.needs and not term.each_channel
]


@pytest.fixture(scope="module")
def whole_rank(tiny_job: Build, tiny_params: Params, extract_to: Extract) -> Extracted:
    """A basis of all channels, which only turns them: what a term loses then is a fault."""
    return extract_to(in_subspace(tiny_job(asked(tiny_params, rank=256))))


@pytest.mark.parametrize("term", SIMILAR)
def test_every_term_learns_from_coordinates_as_from_the_teacher_itself(
    term: str,
    whole_rank: Extracted,
    tiny_params: Params,
    tiny_job: Build,
    build_store: Callable[[StoreConfig], Reader],
) -> None:
    job, reader = whole_rank
    stored = terms_of(reader, job, tiny_params, term, False)
    assert stored == pytest.approx(terms_of(reader, job, tiny_params, term, True), rel=0.1)
    settings = asked(tiny_params, rank=1).model_copy(update={"encodings": EXACT})
    whole = terms_of(build_store(settings), tiny_job(settings), tiny_params, term, False)
    # The projector's channels are turned against its own weights: another start, as good.
    assert stored == pytest.approx(whole, rel=0.3 if term.startswith("memory") else 0.1)


@pytest.mark.parametrize("term", [name for name, term in TERMS.items() if term.each_channel])
def test_terms_of_single_channels_are_refused(
    term: str, subspace_store: Reader, tiny_params: Params
) -> None:
    raw = tiny_params.students["r18_ce"].model_dump() | {"method": None, "terms": {term: 1.0}}
    config = StudentConfig.model_validate(raw)
    with pytest.raises(StoreMismatchError, match=rf"(?s){term} compares .* all 256 channels"):
        check_requirements(config, subspace_store.spec, "here")


@given(seed=st.integers(0, 100))
def test_an_orthonormal_basis_changes_no_similarity(seed: int) -> None:
    """Terms of lengths and cosines take coordinates as they are."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    basis = torch.linalg.qr(draw(24, 8))[0]
    coordinates, student = draw(2, 8, 4, 4), draw(2, 6, 4, 4)
    features = torch.einsum("ij,bjhw->bihw", basis, coordinates)
    labels = torch.randint(0, 3, (2, 4, 4), generator=generator, dtype=torch.uint8)
    valid = torch.ones(2, 4, 4, dtype=torch.bool)

    def terms(x: Tensor) -> list[float]:
        maps = [power(draw_like) for draw_like in (student, x, student)]
        return [
            ifvd.ifvd(student, x, labels, 3).value.item(),
            at.at(student, x, valid).value.item(),
            dsd.psd([power(student)] * 3, maps, valid).value.item(),
        ]

    assert terms(coordinates) == pytest.approx(terms(features), rel=1e-9)


def test_a_store_is_made_and_looked_at_through_the_commands(
    tiny_params: Params, tiny_index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From files: alone, once more after the basis is lost, audited by the store's own basis."""
    build = "tiny_networks:tiny_student"
    monkeypatch.setitem(ARCHITECTURES, "tiny", Architecture("Tiny", build, "none"))
    changes = {"architecture": "tiny", "source": "train"}
    teacher_settings = tiny_params.teacher.model_copy(update=changes)
    params = tiny_params.model_copy(
        update={"teacher": teacher_settings, "store": asked(tiny_params, rank=8)}
    )
    index, teacher, written = (tmp_path / x for x in ("index.json", "tiny.pt", "params.yaml"))
    tiny_index.write(index)
    write_params(params, written)
    network = build_teacher(teacher_settings, tiny_index.class_names)
    sha256 = save_teacher(network, teacher)
    names = list(tiny_index.class_names)
    val = {"miou": 1.0, "confusion": np.eye(len(names), dtype=int).tolist()}
    card = TeacherCard("tiny", names, "train", sha256, val, 0, 0.0)
    write_json(asdict(card), teacher.with_suffix(".json"))
    manifest, stores = tmp_path / "manifests/tiny.json", str(tmp_path / "stores")

    def run(*arguments: object) -> Result:
        found = CliRunner().invoke(main, [*map(str, arguments), "--params", str(written)])
        assert found.exit_code == 0, found.output
        return found

    run("extract", index, teacher, manifest, "--stores", stores)
    spec = Manifest.read(manifest).open().spec
    assert (spec.feature_channels, spec.teacher_channels) == (8, 16)
    for folder in tmp_path.glob("tiny.views-*"):
        shutil.rmtree(folder)
    run("audit", index, teacher, manifest, tmp_path / "audit.json")
    assert not list(tmp_path.glob("tiny.views-*"))
    fidelity = json.loads((tmp_path / "tiny.fidelity.json").read_bytes())
    assert fidelity["images_equal"] == 1
    run("extract", index, teacher, manifest, "--stores", stores, "--again")
    assert Manifest.read(manifest).fingerprint == spec.fingerprint
    assert len(list(Path(stores).glob("*/zarr.json"))) == 1
