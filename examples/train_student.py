"""Train a student of params.yaml with another seed.

python examples/train_student.py MANIFEST RUN SEED FOLDER
"""

import sys
from pathlib import Path

from pipeline.config.params import load_params
from stages.train import Resources, train_one

if __name__ == "__main__":  # loader processes may import this file
    manifest, run, seed, folder = sys.argv[1:]
    student = load_params("params.yaml").students[run].model_copy(update={"seed": int(seed)})
    resources = Resources(device="cpu", num_workers=0, ahead_bytes=2 * 10**9, cache=None)
    train_one(student, f"{run}_{seed}", Path(manifest), Path(folder), resources)
    print(f"{folder}: {', '.join(sorted(path.name for path in Path(folder).iterdir()))}")
