"""Take a few steps of every term and save what they did, alone or as one of several ranks."""

from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.config.methods import TERMS
from pipeline.config.params import StudentConfig, load_params
from pipeline.distillation.objective import Objective
from pipeline.loading.stream import LoaderConfig, stream
from pipeline.models.network import build_network
from pipeline.runtime.distributed import Ranks, joined
from pipeline.runtime.rng import seed_torch
from pipeline.training.optimizer import Optimisation
from store.reader import Reader, open_store

CPU = torch.device("cpu")
NUM_STEPS = 3
PARAMS = Path(__file__).parents[3] / "profiles/tiny.yaml"
ALONE_ONLY = {"channel_minibatch"}  # compares channels of one rank's images with each other


def settings() -> StudentConfig:
    raw = load_params(PARAMS).students["r18_cirkd"].model_dump()
    raw["training"] |= {"batch_size": 4, "optimizer": "sgd", "learning_rate": 0.01}
    raw["distillation"] |= {"cross_rank_contrast": True}
    terms = {name: 1.0 for name in TERMS if name not in ALONE_ONLY}
    return StudentConfig.model_validate({**raw, "method": None, "terms": terms})


def freeze_chance(module: nn.Module) -> None:
    """Batch statistics and dropout are of one rank's images: leave both out."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()
        if isinstance(part, nn.Dropout):
            part.p = 0.0


def take_steps(reader: Reader, ranks: Ranks) -> dict[str, object]:
    run = settings()
    seed_torch(0, "test")
    student = build_network(run.architecture, reader.spec.num_classes).train()
    objective = Objective(student, reader.spec, run, CPU, ranks)
    objective.fill(reader)
    freeze_chance(objective.modules)
    optimisation = Optimisation(objective.modules, run.training, CPU)
    compute_terms = objective.replicated()
    start = {name: p.detach().clone() for name, p in objective.modules.named_parameters()}
    batches = stream(reader, LoaderConfig(0, 4), range(NUM_STEPS), CPU, ranks)
    seen: list[dict[str, float]] = []
    gradients: dict[str, Tensor] = {}
    for batch in batches:
        terms = compute_terms(batch)
        optimisation.backward(
            torch.stack([objective.weights[n] * v for n, v in terms.items()]).sum()
        )
        if not seen:
            gradients = {n: p.grad.clone() for n, p in objective.modules.named_parameters()}
        optimisation.step()
        seen.append({name: value.item() for name, value in terms.items()})
    states = {name: part.state_dict() for name, part in objective.parts.items()}
    weights = objective.modules.state_dict()
    moves = {name: (weights[name] - x).flatten() for name, x in start.items()}
    found = {"terms": seen, "first_gradients": gradients, "weights": weights, "moves": moves}
    return {**found, "states": states}


def take_and_save(store: str, folder: Path) -> None:
    with joined(CPU) as ranks:
        torch.save(take_steps(open_store(store), ranks), folder / f"{ranks.rank}.pt")
