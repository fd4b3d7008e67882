"""`addergraph certify`: what it prints and writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.addergraph.shell import Shell
from tests.codegen.objects import CLEAN, PLANTED, compiled


def test_certify_writes_the_certificate_beside_the_file(shell: Shell, tmp_path: Path) -> None:
    file, beside = tmp_path / "net.o", tmp_path / "certificate.json"
    file.write_bytes(compiled(CLEAN, "thumb"))
    assert "multiplication-free: yes" in shell.ok("certify", file)
    assert json.loads(beside.read_text())["multiplication_free"] is True
    file.write_bytes(compiled(CLEAN + PLANTED, "thumb"))
    done = shell("certify", file)
    assert done.status == 1 and "second+0x2: muls r0, r1, r0: multiply" in done.out
    assert "1 multiply (refused)" in done.out and max(map(len, done.out.splitlines()[:-1])) <= 80
    assert json.loads(beside.read_text())["multiplication_free"] is False
    other = tmp_path / "other.json"
    assert shell("certify", file, "--json", other).status == 1
    assert other.read_bytes() == beside.read_bytes()
    file.write_bytes(b"not an object")
    assert "is no ELF file" in shell.error("certify", file)
    assert not beside.exists(), "it speaks of an earlier file"
    other.write_text("{}")
    assert "is no ELF file" in shell.error("certify", file, "--json", other)
    assert other.read_text() == "{}", "it is no certificate"


def test_certify_takes_paths_from_home(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "net.o").write_bytes(compiled(CLEAN, "thumb"))
    shell.ok("certify", "~/net.o")
    shell.ok("certify", "~/net.o", "--json", "~/other.json")
    found = [(tmp_path / name).read_bytes() for name in ("certificate.json", "other.json")]
    assert found[0] == found[1]
