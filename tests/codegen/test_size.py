"""size and boards: what a library takes, where there is room for it, before it is compiled."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

import addergraph as ag
from addergraph.cli.main import main
from addergraph.codegen import llvm
from addergraph.codegen.export.archive import Member, archive
from addergraph.codegen.export.library import Exported
from addergraph.codegen.inspect.size import size_of, size_of_archive
from addergraph.codegen.targets.boards import BOARDS, board_of
from addergraph.codegen.targets.lookup import target_named
from addergraph.errors import AdderGraphError, DataError, StorageError, TargetError
from addergraph.errors import UnsupportedError as NoRoom
from tests.codegen.test_header import BYTES


def export(folder: Path, **more: object) -> Exported:
    weights = {"f": np.arange(8, dtype=np.uint8).reshape(2, 4)}
    return ag.export(ag.parse(BYTES), folder, weights=weights, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(tmp_path_factory.mktemp("size"), board="microbit")


def test_the_parts_are_those_of_the_metadata(library: Exported) -> None:
    facts, found = json.loads(library.metadata.read_text()), size_of(library.archive)
    assert size_of(library.archive.parent) == found
    assert (found.library, found.target) == ("bytes", "thumbv6m")
    assert found.flash["weights"] == facts["weights_bytes"]
    assert found.ram == {"arena": facts["arena_bytes"], "data": 0}
    assert found.stack == facts["stack_bytes"] > 0
    assert found.ram_of_a_call["stack"] == found.stack
    del facts["files"], facts["no_shared_library"]  # of the folder
    assert found.flash["metadata"] == len(json.dumps(facts, indent=2, sort_keys=True)) + 2


@pytest.mark.needs("size")
@pytest.mark.parametrize(("target", "writes"), [("x86-64", 0), ("x86-64-every", 4)])
def test_the_sum_is_that_of_binutils(target: str, writes: int, tmp_path: Path) -> None:
    made = export(tmp_path, target=target)
    said = subprocess.run(["size", "-t", made.archive], capture_output=True, text=True, check=True)
    text, data, bss = map(int, said.stdout.splitlines()[-1].split()[:3])
    found = size_of(made.archive)
    assert (sum(found.flash.values()), found.ram["data"]) == (text + data, data + bss)
    assert found.ram["data"] == writes


# -- rooms ---------------------------------------------------------------------------------------


def test_every_board_has_a_target_and_memory() -> None:
    for name, board in BOARDS.items():
        assert board.name == name
        assert not any(target_named(target).hosted for target in board.targets)
        assert board.ram is not None and board.flash is not None
        assert 1 << 13 < board.ram < board.flash < 1 << 23


def test_the_board_chooses_the_target() -> None:
    board = board_of("host", "esp32-c3", None, 1000)
    assert board is not None and (board.targets, board.ram) == (("riscv32imc", "riscv32i"), 1000)
    assert board.flash == 4 << 20
    other = board_of("thumbv7em-f32", "nrf52840", None, None)
    assert other is not None and other.targets == ("thumbv7em-f32",)
    assert board_of("host", None, None, None) is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"flash": 200},
            r"flash at least 256 of 200 bytes \(weights 64, self-test 192\); take a larger",
        ),
        ({"ram": 100}, r"on this board: RAM at least 128 of 100 bytes \(arena 128\)"),
        ({"board": "microbit", "ram": 100}, "on microbit: RAM at least 128 of 100"),
    ],
)
def test_what_cannot_have_room_is_not_compiled(
    more: dict[str, object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(llvm, "compile_both")
    with pytest.raises(NoRoom, match=said):
        export(tmp_path, **({"target": "thumbv6m"} | more))


def test_the_last_byte_counts(library: Exported, tmp_path: Path) -> None:
    """Of code and stack, which are known when there is code: nothing is written then."""
    found = size_of(library.archive)
    flash, ram = sum(found.flash.values()), sum(found.ram_of_a_call.values())
    for memory in ({"flash": flash - 1}, {"ram": ram - 1}):
        with pytest.raises(NoRoom, match="code" if "flash" in memory else "stack"):
            export(tmp_path, board="microbit", **memory)
        assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    assert size_of(export(tmp_path, board="microbit", flash=flash, ram=ram).archive) == found


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("host", "microbits", None, None), TargetError, r'did you mean "microbit"\?'),
        (("riscv32i", "microbit", None, None), TargetError, "runs code for thumbv6m, not for"),
        (("host", None, 0, None), DataError, "flash=0 must be a number of bytes of at least 1"),
        (("host", None, None, 1.5), DataError, r"ram=1.5 must be an integer"),
    ],
)
def test_no_board(arguments: tuple[object, ...], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        board_of(*arguments)  # type: ignore[arg-type]


# -- files ---------------------------------------------------------------------------------------


def test_an_archive_of_something_else(library: Exported, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="the metadata of 0 libraries, expected that of one"):
        size_of_archive(b"".join(archive([])), "empty.a")
    data = Member("data.o", [library.data.read_bytes()], ())
    with pytest.raises(StorageError, match="the metadata of 2 libraries"):
        size_of_archive(b"".join(archive([data, data])), "two.a")
    (tmp_path / "metadata.json").write_text('{"name": "../net"}')
    with pytest.raises(StorageError, match="names no library"):
        size_of(tmp_path)


def test_damaged_archives_raise_errors_of_ours(library: Exported) -> None:
    whole, rng, refused = library.archive.read_bytes(), np.random.default_rng(0), 0
    for at in rng.integers(0, len(whole), 200):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << int(rng.integers(8))
        for damaged in (bytes(flipped), whole[:at]):
            try:
                size_of_archive(damaged, "damaged.a")
            except AdderGraphError:
                refused += 1
    assert refused >= 200


# -- the command ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("more", "status"), [([], 0), (["--flash", "1000"], 1)])
def test_the_command(
    more: list[str], status: int, library: Exported, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(library.archive.parent)
    with pytest.raises(SystemExit) as ended:
        main(["size", folder, "--board", "microbit", *more])
    text = capsys.readouterr().out
    assert ended.value.code == status and ("no room on microbit" in text) == bool(status)
    assert "flash   weights" in text and "instructions an image: benchmarks/boards.py" in text
    with pytest.raises(SystemExit) as ended:
        main(["size", folder, "--board", "microbit", "--json", *more])
    said = json.loads(capsys.readouterr().out)
    assert ended.value.code == status and said["fits"] == (not status)
    assert said["flash_bytes"] == sum(said["flash"].values())
    assert said["ram_bytes"] == sum(said["ram"].values()) + said["stack"]
    assert said["board"]["ram"] == BOARDS["microbit"].ram
