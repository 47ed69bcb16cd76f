"""Train a student of params.yaml with another seed, from a store, without DVC.

python examples/train_student.py MANIFEST RUN SEED FOLDER
"""

import sys
from pathlib import Path

from pipeline.config.params import load_params
from pipeline.models.students import build_student, save_student, stored_classes
from pipeline.training.run import Resources, run_training
from pipeline.training.student import student_run
from store.manifest import Manifest

if __name__ == "__main__":  # loader processes may import this file
    manifest, run, seed, folder = sys.argv[1:]
    settings = load_params("params.yaml").students[run].model_copy(update={"seed": int(seed)})
    stored = Manifest.read(Path(manifest))
    reader = stored.open()
    student = build_student(settings, reader.spec.num_classes)
    header = {"params": settings.model_dump(mode="json")}
    run_training(student_run(run, student, settings, reader, header, Resources(Path(folder))))
    save_student(student, settings, stored_classes(reader.spec), Path(folder) / "model.pt")
    print(f"{folder}: {', '.join(sorted(path.name for path in Path(folder).iterdir()))}")
