"""Train a student of params.yaml with another seed.

python examples/train_student.py MANIFEST RUN SEED FOLDER
"""

import sys
from pathlib import Path

import torch

from pipeline.config.params import load_params
from pipeline.models.students import build_student, save_student
from pipeline.runtime.rng import seed_torch
from pipeline.training.run import Resources, describe_run, run_training
from pipeline.training.student import student_run
from store.manifest import Manifest
from store.reader import open_store

manifest, run, seed, folder = sys.argv[1:]
settings = load_params("params.yaml").students[run].model_copy(update={"seed": int(seed)})
reader = open_store(Manifest.read(manifest).path)
seed_torch(settings.seed, "student", "weights")
student = build_student(settings.architecture, reader.spec.num_classes, settings.encoder_weights)
header = describe_run(settings, torch.device("cpu"), precision_cost=None)
training = student_run(run, student, settings, reader, header, Resources(work=Path(folder)))
seconds = run_training(training, progress=lambda done, total, note: print(done, total, note))
save_student(student, settings, reader.spec.class_names, Path(folder) / "model.pt")
print(f"{seconds} s; {', '.join(sorted(path.name for path in Path(folder).iterdir()))}")
