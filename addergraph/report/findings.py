"""What passes, lints and diagnostics say of a node of a graph that is valid but likely wrong."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A node or parameter of a graph: what is wrong with it and what to do about it."""

    node: str
    message: str
    hint: str

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}"
