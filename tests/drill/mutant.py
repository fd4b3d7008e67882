"""What a planted bug is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One wrong line of the compiler, and the quick tests that have to notice it.

    name   what is wrong
    file   relative to the root of the repository
    old    text that occurs in it exactly once
    new    what stands there instead
    tests  pytest node ids, without command-line options
    needs  a package that these tests need and `make test` does not install
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    needs: str = ""


def tests_of(file: str, *names: str) -> tuple[str, ...]:
    """Node ids of some tests of one file, or of all of it."""
    return tuple(f"tests/{file}::{name}" for name in names) or (f"tests/{file}",)
