"""The model card of a pack: what the student is, what it was made of, how it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config.architectures import find_architecture, is_import_path
from pipeline.config.methods import METHODS
from pipeline.models.network import Network

UNKNOWN = "not recorded"


def write_card(
    network: Network,
    class_names: tuple[str, ...],
    run: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    identity: Mapping[str, Any],
) -> str:
    """Write a student's card as Markdown.

    Args:
        network: of the student.
        class_names: of its dataset.
        run: what run.json holds, or nothing.
        evaluation: what evaluation.json holds, or nothing.
        identity: of the store, or nothing.
    """
    params, teacher = run.get("params", {}), identity.get("teacher", {})
    flops = run.get("num_flops")
    rows = {
        "architecture": network.architecture,
        "parameters": f"{network.num_parameters / 1e6:.2f} M",
        "FLOPs of a training view": f"{flops / 1e9:.2f} G" if flops else UNKNOWN,
        "dataset (fingerprint)": identity.get("dataset", UNKNOWN),
        "teacher": _name_teacher(teacher) if teacher else UNKNOWN,
        "store (fingerprint)": run.get("store", UNKNOWN),
        "method": params.get("method") or run.get("label", UNKNOWN),
        "terms": _list_terms(params),
        "steps": params.get("training", {}).get("steps", UNKNOWN),
        "seed": params.get("seed", UNKNOWN),
        "commit": run.get("commit") or UNKNOWN,
        **_figures(evaluation),
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    code = ""
    if is_import_path(network.architecture):
        code = (
            f"\nThe code of `{network.architecture}` is not in this pack: it must be importable, "
            f'and named: `load_student(path, {{"{network.architecture}"}})`.\n'
        )
    title = find_architecture(network.architecture).title
    return f"""# {title}, {len(class_names)} classes

| | |
|---|---|
{chr(10).join(lines)}

Classes: {", ".join(class_names)}.

## Use

With the package offline-cirkd installed, PATH being this folder or zip:

```python
from pipeline.models.network import predict
from pipeline.models.students import load_student
student = load_student("PATH")
classes = predict(student.network, image, student.precision)  # image: uint8 RGB [B, 3, H, W]
names = student.classes.names
```
{code}
`model.safetensors` holds the weights, `config.json` all else that loading needs.

## Licence

Whoever shares this pack states the licence of the weights here. The licences of the dataset, and of
weights that teacher and student started from, may bind them.
"""


def _name_teacher(teacher: Mapping[str, Any]) -> str:
    return f"{teacher['architecture']} (SHA-256 {teacher['sha256'][:16]})"


def _list_terms(params: Mapping[str, Any]) -> str:
    if not params:
        return UNKNOWN
    terms = {**METHODS.get(params.get("method") or "", {}), **(params.get("terms") or {})}
    return ", ".join(f"{name} {weight:g}" for name, weight in terms.items()) or "none"


def _figures(evaluation: Mapping[str, Any]) -> dict[str, str]:
    if "miou" not in evaluation:
        return {"mIoU": UNKNOWN}
    split = evaluation.get("split", "val")
    figures = {"mIoU": evaluation["miou"], "pixel accuracy": evaluation["pixel_accuracy"]}
    return {
        f"{name} on {split}": UNKNOWN if x is None else f"{100 * x:.2f} %"
        for name, x in figures.items()
    }
