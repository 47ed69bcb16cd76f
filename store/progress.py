"""What long work tells of itself while it goes on."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with (how many are done, how many there are), first before any is done."""
