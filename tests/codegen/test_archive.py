"""archive: the bytes that GNU ar writes, without it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from addergraph.codegen.export.archive import Member
from addergraph.codegen.llvm import compile_object
from addergraph.codegen.targets.x86 import BASELINE
from tests.codegen.elves import joined


def member(name: str, *symbols: str) -> Member:
    """An object with an odd or even length and some global constants."""
    text = "".join(f'@{s} = constant [3 x i8] c"abc"\n' for s in symbols)
    return Member(name, [compile_object(text, BASELINE)], symbols)


@pytest.mark.needs("ar")
@pytest.mark.parametrize(
    "members",
    [
        [member("net.o", "net_run", "net_selftest"), member("net_data.o", "net_data")],
        [member("a_name_of_sixteen.o", "first"), member("b.o"), member("another_long_name.o", "z")],
        [member("fifteen_chars_o", "x")],
    ],
)
def test_the_bytes_are_those_of_gnu_ar(members: list[Member], tmp_path: Path) -> None:
    for m in members:
        (tmp_path / m.name).write_bytes(b"".join(m.data))
    subprocess.run(["ar", "rcsD", "x.a", *(m.name for m in members)], cwd=tmp_path, check=True)
    assert joined(members) == (tmp_path / "x.a").read_bytes()


def test_members_of_odd_length_are_padded() -> None:
    made = joined([Member("a", [b"12", b"3"], ("s",)), Member("b", [b"4"], ())])
    assert len(made) % 2 == 0
    # "s" is in the member at the offset that the index says, right behind the index.
    offset = int.from_bytes(made[72:76], "big")
    assert made[offset : offset + 2] == b"a/" and made[offset + 60 : offset + 64] == b"123\n"
    assert made[offset + 64 : offset + 66] == b"b/"
