"""Checks of a unit's arrays against the schema, before any of them is written."""

from collections.abc import Mapping

import numpy as np

from store.arrays import ArraySpec
from store.errors import StoreMismatchError
from store.schema import VOID, StoreSpec, array_specs


def validate_arrays(
    spec: StoreSpec, unit: int, arrays: Mapping[str, np.ndarray], where: str
) -> dict[str, np.ndarray]:
    """Return one unit's arrays in the schema's dtypes.

    Args:
        spec: The store's spec.
        unit: Which unit.
        arrays: Every array of the schema, encoded, leading axis = records of the unit.
        where: What to call them in an error.

    Raises:
        StoreMismatchError: An array is missing, unknown, of another shape or dtype, not finite, or
            names a class that there is not.
    """
    specs = array_specs(spec)
    if set(arrays) != set(specs):
        raise StoreMismatchError(
            "other arrays than the schema's", where=where, expected=[*specs], found=[*arrays]
        )
    num_records = len(spec.unit_records(unit))
    valid = {
        name: _convert(np.asarray(arrays[name]), array, num_records, f"{where}, {name}")
        for name, array in specs.items()
    }
    for name in ("labels", "pixel_sample_class"):
        if name in valid:
            _refuse_unknown_classes(valid[name], spec.num_classes, f"{where}, {name}")
    return valid


def _convert(values: np.ndarray, array: ArraySpec, num_records: int, where: str) -> np.ndarray:
    """Return values in the array's dtype; wider integers pass if none of them changes."""
    shape = (num_records, *array.record_shape)
    if array.dtype == "str":
        fits = values.dtype.kind in "UTO"
        fitted = np.array(values.tolist(), np.str_) if fits else values
    else:
        same_kind = {values.dtype.kind, np.dtype(array.dtype).kind} <= {"i", "u"}
        fitted = values.astype(array.dtype, copy=False) if same_kind else values
        fits = fitted.dtype == array.dtype and (fitted is values or np.array_equal(fitted, values))
    if values.shape != shape or not fits:
        raise StoreMismatchError(
            "array does not fit the schema",
            where=where,
            expected=f"{array.dtype} {shape}",
            found=f"{values.dtype} {values.shape}",
        )
    if fitted.dtype.kind == "f" and not np.isfinite(fitted).all():
        raise StoreMismatchError("values are not finite", where=where, expected="finite values")
    return fitted


def _refuse_unknown_classes(classes: np.ndarray, num_classes: int, where: str) -> None:
    unknown = np.unique(classes[(classes >= num_classes) & (classes != VOID)])
    if len(unknown):
        expected = f"0..{num_classes - 1} or {VOID}"
        raise StoreMismatchError(
            "no such class", where=where, expected=expected, found=unknown.tolist()
        )
