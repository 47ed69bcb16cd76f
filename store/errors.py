"""Errors in four parts: what, where, expected against found, what to do."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Self


class StoreError(Exception):
    """A fault of a feature store, described in four parts.

    Args:
        what: What went wrong, one clause.
        where: The path, array, unit or record concerned.
        expected: What should have been there (any value: it is printed).
        found: What was there instead (any value: it is printed).
        hint: What the reader of this message can do.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        expected: Any = None,
        found: Any = None,
        hint: str | None = None,
    ) -> None:
        self.what, self.where = what, where
        self.expected, self.found, self.hint = expected, found, hint
        super().__init__(self._message())

    @property
    def parts(self) -> dict[str, Any]:
        """Return the arguments by name."""
        names = ("what", "where", "expected", "found", "hint")
        return {name: getattr(self, name) for name in names}

    def at(self, where: str, hint: str) -> Self:
        """Return the same error with another place and hint."""
        return type(self)(**self.parts | {"where": where, "hint": hint})

    def _message(self) -> str:
        lines = [f"{self.what}: {self.where}" if self.where else self.what]
        if self.expected is not None:
            lines.append(f"  expected: {self.expected}")
        if self.found is not None:
            lines.append(f"  found: {self.found}")
        if self.hint:
            lines.append(f"  what to do: {self.hint}")
        return "\n".join(lines)

    def __str__(self) -> str:
        # OSError would format the arguments itself.
        return self._message()

    def __reduce__(self) -> tuple[Callable[[], Self], tuple[()]]:
        # Errors travel out of reader processes, so they must survive pickling with all parts.
        return partial(type(self), **self.parts), ()


def list_lines(lines: Iterable[str]) -> str:
    """Join lines so that each stands on a line of its own below "expected:" or "found:"."""
    return "\n    ".join(["", *lines])


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no store at the path."""


class StoreUnreachableError(StoreError, OSError):
    """The server does not answer; the store itself may be whole."""


class StoreMismatchError(StoreError, ValueError):
    """A store, an array or a value is not the one that was asked for."""


class StoreIncompleteError(StoreError):
    """The store is sound so far, but units are missing."""


class StoreDamagedError(StoreError):
    """Stored bytes are missing or are not those that were written."""


class StoreLockedError(StoreError, BlockingIOError):
    """Another process is writing the store."""


class StoreWriteError(StoreError, OSError):
    """The file system refused a write: no space, read-only, no permission."""
