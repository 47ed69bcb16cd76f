"""Take a few steps of every term and save what they did; run alone, or by torchrun."""

import sys
from pathlib import Path

import torch
from torch import nn

from pipeline.config.params import StudentConfig, load_params
from pipeline.distillation.objective import Objective
from pipeline.distillation.terms import TERMS
from pipeline.loading.stream import stream
from pipeline.models.students import build_student
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
    student = build_student(run.architecture, reader.spec.num_classes).train()
    objective = Objective(student, reader.spec, run, CPU, ranks)
    objective.fill(reader)
    freeze_chance(objective.modules)
    optimisation = Optimisation(objective.modules, run.training, CPU)
    compute_terms, weights = objective.replicated(), objective.weights
    steps = range(NUM_STEPS)
    batches = stream(reader, seed=0, batch_size=4, steps=steps, device=CPU, ranks=ranks)
    seen = []
    for batch in batches:
        terms = compute_terms(batch)
        optimisation.backward(torch.stack([weights[n] * v for n, v in terms.items()]).sum())
        gradients = {n: p.grad.clone() for n, p in objective.modules.named_parameters()}
        optimisation.step()
        seen.append({"terms": {n: v.item() for n, v in terms.items()}, "gradients": gradients})
    states = {name: part.state_dict() for name, part in objective.parts.items()}
    return {"steps": seen, "weights": objective.modules.state_dict(), "states": states}


if __name__ == "__main__":
    store, folder = sys.argv[1:]
    torch.set_num_threads(1)
    with joined(CPU) as ranks:
        torch.save(take_steps(open_store(store), ranks), Path(folder) / f"{ranks.rank}.pt")
