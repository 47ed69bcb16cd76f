"""What an encoder starts from: a published name, a file, or a file in an installed package."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import segmentation_models_pytorch as smp
import timm
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import Tensor, nn

from pipeline.config.weights import find_package_file
from pipeline.runtime.checkpoint import list_misfits, load_weights
from store.files import reading

FILE = "model.safetensors"


def load_encoder(encoder: nn.Module, name: str, weights: str) -> None:
    """Give an encoder of segmentation_models_pytorch the weights that it starts from.

    Args:
        encoder: fresh.
        name: its name; `tu-` encoders are timm's.
        weights: `none`; `package`; a file, be it of a whole classifier; or a name of the hub's
            (`imagenet`).

    Raises:
        ValueError: there are no such weights, or they do not fit; the message lists what does not.
    """
    if weights == "none":
        return
    what, hint = f"weights of {name}", "correct encoder_weights"
    if weights == "package":
        path = find_package_file(name)
    elif Path(weights).is_file() or Path(weights).suffix or "/" in weights:
        path = Path(weights)
    else:
        path = _download(*_locate(name, weights))
    state = load_weights(path, what, hint)
    with reading(path, what, hint):
        if weights == "package":
            state = _rename_in_order(state, name.removeprefix("tu-"))
        encoder.load_state_dict(_fit(encoder.state_dict(), state))


def _locate(name: str, weights: str) -> tuple[str, str | None]:
    """Return the repository and revision of published weights."""
    if name.startswith("tu-") and weights == "imagenet":
        published = timm.get_pretrained_cfg(name.removeprefix("tu-"))
        if published is not None and published.hf_hub_id is not None:
            return published.hf_hub_id.rstrip("/"), None
    settings = smp.encoders.encoders.get(name, {}).get("pretrained_settings", {})
    known = [one for one in settings if one != "advprop"]  # which wants images made otherwise
    if weights not in known:
        raise ValueError(
            f"encoder_weights: {weights}: no such file, nor weights of {name}; expected "
            f"{', '.join(known) or 'imagenet (where timm has it; tu-NAME.TAG chooses)'}, a file or "
            "none"
        )
    return settings[weights]["repo_id"], settings[weights]["revision"]


def _download(repository: str, revision: str | None) -> Path:
    """Take a file from the hub's cache, without a look at the network, or else from the hub."""
    for local in (True, False):
        try:
            found = hf_hub_download(repository, FILE, revision=revision, local_files_only=local)
            return Path(found)
        except LocalEntryNotFoundError:
            continue
    at = "" if revision is None else f" --revision {revision}"
    raise ValueError(
        f"encoder_weights: {FILE} of {repository} is not in the hub's cache, and the hub cannot be "
        f"reached; where it can, run `hf download {repository} {FILE}{at}`, and copy the cache "
        "($HF_HOME) here, or give the file itself as encoder_weights"
    )


def _rename_in_order(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Give the tensors of another program's network timm's names, one after the other."""
    with torch.device("meta"):
        names = timm.create_model(name).state_dict()
    return dict(zip(names, state.values(), strict=True))


def _fit(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take an encoder's tensors from a network's; what lies outside its modules is a classifier.

    Raises:
        ValueError: tensors are missing, have other shapes, or belong to a larger encoder.
    """
    own = {_plain(name): name for name in expected}
    modules = {plain.partition(".")[0] for plain in own}
    given = {_plain(name): tensor for name, tensor in state.items()}
    given = {plain: x for plain, x in given.items() if plain.partition(".")[0] in modules}
    if misfits := list_misfits({plain: expected[name] for plain, name in own.items()}, given):
        raise ValueError(", ".join(line.strip() for line in misfits.splitlines()))
    return {name: given.get(plain, expected[name]) for plain, name in own.items()}


def _plain(name: str) -> str:
    """Return a name as whole networks have it: timm's encoders say stages_0 for stages.0.

    Some of them are wrapped twice: model.model.
    """
    return re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", re.sub(r"^(model\.)+", "", name))
