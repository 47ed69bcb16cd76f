"""A store filled by numpy instead of a teacher; run as a script, it can be told when to be killed.

    python stand_in.py STORE [EVENTS]

Before event number EVENTS (every rename and every fsync is one) it kills itself with SIGKILL.
"""

import os
import signal
import sys
from typing import Any

import numpy as np

from store.encodings.registry import find_encoding
from store.schema import StoreSpec, array_specs
from store.writer import Writer


def make_spec(
    logits: str = "float16", features: str = "uint8_per_pixel", **changes: Any
) -> StoreSpec:
    """Build a spec of 5 images x 2 views in units of 4: three units, the last one short."""
    sizes = {
        "num_images": 5,
        "num_views": 2,
        "height": 16,
        "width": 32,
        "num_classes": 3,
        "feature_channels": 4,
        "feature_height": 2,
        "feature_width": 4,
        "stride": 8,
        "sample_slots": 6,
        "unit_size": 4,
        "class_names": ("sky", "road", "car"),
        "identity": {"teacher": {"sha256": "aa", "architecture": "stand-in"}, "views": {"seed": 0}},
        "provenance": {"numpy": "any"},
    }
    encodings = {
        "logits_encoding": find_encoding(logits),
        "features_encoding": find_encoding(features),
    }
    return StoreSpec(**{**sizes, **encodings, **changes})


def make_unit(spec: StoreSpec, unit: int) -> dict[str, np.ndarray]:
    """Draw one unit's arrays; the same ones for the same unit."""
    rng = np.random.default_rng([7, unit])
    records = spec.unit_records(unit)
    arrays = {
        name: rng.integers(0, 2, (len(records), *array.record_shape)).astype(array.dtype)
        for name, array in array_specs(spec).items()
        if array.dtype != "str"
    }
    stored = set(arrays)
    shape = (len(records), spec.feature_height, spec.feature_width)
    logits = rng.normal(size=(len(records), spec.num_classes, *shape[1:])).astype(np.float32)
    features = rng.random((len(records), spec.feature_channels, *shape[1:]), np.float32)
    for name, encoding, x in (
        ("logits", spec.logits_encoding, logits),
        ("features", spec.features_encoding, features),
    ):
        encoded = {name + suffix: values for suffix, values in encoding.encode(x).items()}
        arrays |= {array: values for array, values in encoded.items() if array in stored}
    keys = [f"train/é{record % spec.num_images}" for record in records]
    return arrays | {
        "key": np.array(keys),
        "image": rng.integers(0, 256, (len(records), 3, spec.height, spec.width), np.uint8),
        "view_index": np.array(records) // spec.num_images,
    }


def fill(path: str | os.PathLike[str], spec: StoreSpec) -> str:
    """Write whatever is missing and return the digest."""
    with Writer.open(path, spec) as writer:
        for unit in writer.missing_units():
            writer.write(unit, make_unit(spec, unit))
        return writer.finish().digest


def kill_before(event: int) -> None:
    """Let this process be killed before its event-th rename or fsync."""
    left = event

    def counted(call: Any) -> Any:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapper

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        kill_before(int(sys.argv[2]))
    print(fill(sys.argv[1], make_spec()))
