"""Errors in four parts: what, where, expected against found, what to do."""

from typing import Any


class StoreError(Exception):
    """A fault of a feature store, told in four parts.

    Args:
        what: What went wrong, one clause.
        where: The path, array, unit or record concerned.
        expected: What should have been there.
        found: What was there instead.
        remedy: What the reader of this message can do.
    """

    def __init__(
        self,
        what: str,
        where: str = "",
        expected: Any = None,
        found: Any = None,
        remedy: str | None = None,
    ) -> None:
        self.parts = (what, where, expected, found, remedy)
        self.what, self.where, self.expected, self.found, self.remedy = self.parts
        super().__init__(self._message())

    def _message(self) -> str:
        lines = [f"{self.what}: {self.where}" if self.where else self.what]
        if self.expected is not None:
            lines.append(f"  expected: {self.expected}")
        if self.found is not None:
            lines.append(f"  found: {self.found}")
        if self.remedy:
            lines.append(f"  what to do: {self.remedy}")
        return "\n".join(lines)

    def __str__(self) -> str:
        # OSError would print its own idea of these arguments.
        return self._message()

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors travel out of reader processes, so they must survive pickling with all parts.
        return type(self), self.parts


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no store at the path."""


class StoreUnreachableError(StoreError, OSError):
    """Whatever holds the store does not answer; that says nothing about the store."""


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
