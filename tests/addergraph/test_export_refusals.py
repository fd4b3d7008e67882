"""What an export refuses: a word for each mistake, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import addergraph as ag
from addergraph.codegen.export.archive import Member, archive
from addergraph.codegen.export.library import Exported
from addergraph.codegen.inspect.certificate import certify_bytes
from addergraph.codegen.inspect.size import size_of, size_of_archive
from addergraph.codegen.targets.lookup import target_named
from addergraph.errors import AdderGraphError, ShapeError, StorageError, TargetError
from addergraph.errors import UnsupportedError as NoRoom
from tests.addergraph.shell import Shell
from tests.codegen.test_header import BYTES

WEIGHTS = {"f": np.arange(8, dtype=np.uint8).reshape(2, 4)}
OBJECT = b"\0asm\1\0\0\0\0\x09\x07linking\x02"


def export(folder: Path, **more: object) -> Exported:
    return ag.export(ag.parse(BYTES), folder, weights=WEIGHTS, **more)  # type: ignore[arg-type]


def test_a_refused_export_leaves_no_folder(tmp_path: Path) -> None:
    for more in ({"flash": 200}, {"board": "microbit", "ram": 100}):
        with pytest.raises(NoRoom, match="no room"):
            export(tmp_path / "new" / "deep", target="thumbv6m", **more)
        assert not [*tmp_path.iterdir()]
    (tmp_path / "kept").mkdir()
    with pytest.raises(NoRoom):
        export(tmp_path / "kept", target="thumbv6m", flash=200)
    assert [*tmp_path.rglob("*")] == [tmp_path / "kept"]


@pytest.mark.parametrize("target", ["x86-64-windows", "arm64-macos"])
def test_sizes_are_of_linux_and_boards(target: str, tmp_path: Path) -> None:
    export(tmp_path / "net", target=target)
    with pytest.raises(NoRoom, match="library for Windows or macOS, whose objects are not read"):
        size_of(tmp_path / "net")


def test_onnx_models_are_imported_first(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    for command in ("summary", "evaluate", "compile"):
        options = ["-o", tmp_path / "c"] if command == "compile" else []
        error = shell.error(command, tmp_path / "m.onnx", *options)
        assert "is an ONNX model; make a model file of it: addergraph import" in error
    error = shell.error("train", "--model", "m.onnx", "-o", tmp_path / "t.safetensors")
    assert "addergraph import makes a model file of an ONNX model" in error


def test_no_folder_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write into the folder"):
        export(tmp_path / "file" / "x", target="thumbv6m")


def test_a_library_of_no_sample(tmp_path: Path, shell: Shell) -> None:
    with pytest.raises(ShapeError, match="at least one sample a call"):
        export(tmp_path / "made", batch=0, target="thumbv6m")
    done = shell("compile", "small-adder", "-o", tmp_path / "made", "--batch", "0")
    assert done.status == 2 and "--batch" in done.err and "1" in done.err
    assert not (tmp_path / "made").exists()


def test_a_name_that_c_has_not_is_said(shell: Shell) -> None:
    Path("n.ag").write_text(BYTES)
    np.savez("n.npz", f=WEIGHTS["f"])
    given = ("compile", "n.ag", "--weights", "n.npz", "--target", "thumbv6m", "-o")
    out = shell.ok(*given, "one", "--name", "my-net")
    assert '--name "my-net" is no name in C: the library is called "my_net"' in out
    assert "no name in C" not in shell.ok(*given, "two", "--name", "my_net")
    said = shell.error(*given, "two", "--name", "other")
    assert 'holds this network under the name "my_net", not "other"; give that name' in said
    assert "another network" not in said


@pytest.mark.parametrize("place", ["", "cats"])
def test_no_library_goes_among_photographs(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "1.JPG").write_bytes(b"")
    with pytest.raises(StorageError, match=r"holds pictures \((cats/)?1\.JPG\), and no export"):
        export(tmp_path, target="thumbv6m")
    assert len([*tmp_path.rglob("*.*")]) == 1
    export(tmp_path, target="thumbv6m", overwrite=True)
    export(tmp_path, target="thumbv6m")  # it is an export by now, whose example reads pictures


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("THUMBV6M", r'"THUMBV6M" \(did you mean "thumbv6m"\?\)'),
        ("Cortex-M4", r'"Cortex-M4" \(did you mean "cortex-m4"\?\)'),
        ("AARCH64-LINUX", r'did you mean "aarch64-linux-gnu'),
        ("STM32F4", "every Cortex-M runs the code of thumbv6m"),
    ],
)
def test_capitals_in_names(given: str, said: str) -> None:
    with pytest.raises(TargetError, match=said):
        target_named(given)


def test_capitals_in_boards(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r'"Microbit" \(did you mean "microbit"\?\)'):
        export(tmp_path, board="Microbit")
    with pytest.raises(TargetError, match=r'"NRF52" \(did you mean "nrf52840"\?\)'):
        export(tmp_path, board="NRF52")


@pytest.mark.parametrize("core", ["cortex-m7", "thumbv7em"])
def test_a_core_of_which_no_cost_is_known(core: str) -> None:
    with pytest.raises(TargetError, match=r"nothing is known of what .* cost there.*leave out"):
        target_named("thumbv7em", core)


def test_objects_of_webassembly_are_called_so() -> None:
    packed = b"".join(archive([Member("net.o", [OBJECT], ())]))
    for data in (OBJECT, packed):
        with pytest.raises(AdderGraphError, match=r"is an object of WebAssembly.*\.wasm"):
            certify_bytes(data, "x")
        with pytest.raises(AdderGraphError, match="is WebAssembly, which an engine runs"):
            size_of_archive(data, "x")
