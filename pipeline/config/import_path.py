"""Where the code lies that an architecture `package.module:factory` names."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path


def find_source(architecture: str) -> str:
    """Return the file of the module of an import path, which may lie in the working folder.

    Raises:
        ValueError: there is no such module.
    """
    here = str(Path.cwd())
    if here not in sys.path:  # `python -m` puts it there, a console script does not
        sys.path.insert(0, here)
    module = architecture.partition(":")[0]
    found, reason = None, f"No module named {module!r}"
    try:
        found = find_spec(module)
    except (ImportError, ValueError) as error:  # of its package, say
        reason = str(error)
    if found is None or found.origin is None:
        raise ValueError(
            f"architecture {architecture}: {reason}; expected one that is installed, or lies in "
            f"{here}"
        )
    return found.origin
