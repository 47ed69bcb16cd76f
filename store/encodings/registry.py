"""The encodings a store can be written with, by name: adding one is adding one line."""

from store.encodings.affine import Uint8Affine
from store.encodings.base import Encoding
from store.encodings.floats import Float16, Float32
from store.encodings.scaled import (
    Int8PerChannel,
    Int8PerPixel,
    Uint4PerChannel,
    Uint8PerChannel,
    Uint8PerPixel,
)
from store.encodings.top_k import TopK
from store.errors import StoreMismatchError

ENCODINGS: dict[str, Encoding] = {
    "float32": Float32(),
    "float16": Float16(),
    "uint8_per_pixel": Uint8PerPixel(),
    "int8_per_pixel": Int8PerPixel(),
    "uint8_per_channel": Uint8PerChannel(),
    "int8_per_channel": Int8PerChannel(),
    "uint4_per_channel": Uint4PerChannel(),
    "uint8_affine": Uint8Affine(),
    "top_3": TopK("top_3", 3),
    "top_5": TopK("top_5", 5),
    "top_8": TopK("top_8", 8),
}


def find_encoding(name: str) -> Encoding:
    """Look an encoding up by name.

    Raises:
        StoreMismatchError: The name is unknown.
    """
    if name not in ENCODINGS:
        raise StoreMismatchError(
            "unknown encoding",
            where="store.encodings of params.yaml",
            expected=f"one of {', '.join(ENCODINGS)}",
            found=name,
            hint="choose one of these",
        )
    return ENCODINGS[name]
