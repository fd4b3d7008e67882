"""Files that survive: what comes back, what is refused, and what a killed save leaves."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from addergraph.errors import StorageError
from addergraph.files import storage
from addergraph.ir import Array
from tests.strangers import give_away

TENSORS: dict[str, Array] = {
    "adder1.f": np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1) - 2,
    "empty": np.zeros((0, 4), np.float32),
    "scalar": np.array(3, np.int32),
    "mask": np.array([True, False, True]),
    "bytes": np.arange(5, dtype=np.uint8),
}
METADATA = {"format": "test", "graph": 'text with "quotes"\nand lines, and ü'}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    storage.save(path, TENSORS, METADATA)
    return path


def test_round_trip_keeps_values_types_shapes_and_metadata(saved: Path) -> None:
    tensors, metadata = storage.load(saved)
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert tensors[name].dtype == array.dtype and tensors[name].shape == array.shape
        assert np.array_equal(tensors[name], array)


def test_any_safetensors_reader_opens_the_file(saved: Path) -> None:
    from safetensors.numpy import load_file

    assert np.array_equal(load_file(saved)["adder1.f"], TENSORS["adder1.f"])


def test_the_same_content_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    storage.save(other, dict(reversed(TENSORS.items())), dict(reversed(METADATA.items())))
    assert other.read_bytes() == saved.read_bytes()


def test_views_that_are_not_contiguous_are_saved_by_value(tmp_path: Path) -> None:
    wide = np.arange(12, dtype=np.float32).reshape(3, 4)
    storage.save(tmp_path / "t", {"t": wide.T[::2]}, {})
    assert np.array_equal(storage.load(tmp_path / "t")[0]["t"], wide.T[::2])


def test_every_flipped_bit_is_noticed(saved: Path) -> None:
    data, rng = saved.read_bytes(), np.random.default_rng(0)
    for position, bit in enumerate(rng.integers(8, size=len(data))):
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(bit)
        saved.write_bytes(damaged)
        with pytest.raises(StorageError, match=r"model\.safetensors"):
            storage.load(saved)


def test_every_truncation_is_noticed(saved: Path) -> None:
    data = saved.read_bytes()
    for length in range(len(data)):
        saved.write_bytes(data[:length])
        with pytest.raises(StorageError, match=r"model\.safetensors"):
            storage.load(saved)


def test_appended_bytes_are_noticed(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes() + b"\0")
    with pytest.raises(StorageError, match=r"damaged"):
        storage.load(saved)


def _with_header(path: Path, header: str, tail: bytes = b"") -> Path:
    text = header.encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + tail)
    return path


def test_duplicate_keys_are_refused(tmp_path: Path) -> None:
    entry = '"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    path = _with_header(tmp_path / "m", f"{{{entry},{entry}}}", bytes(4))
    with pytest.raises(StorageError, match=r'defines "w" twice'):
        storage.load(path)


def test_a_huge_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    with pytest.raises(StorageError, match=r"claims 1099511627776 bytes"):
        storage.load(tmp_path / "m")


def test_deep_nesting_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"not JSON"):
        storage.load(_with_header(tmp_path / "m", "[" * 200_000))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("[]", "no JSON object"),
        ("{}", "not written by AdderGraph"),
        ('{"__metadata__":{"addergraph":"[]"}}', "incomplete"),
        ('{"__metadata__":{"addergraph":"{\\"metadata\\":{}}"}}', "incomplete"),
        ('{"__metadata__":{"addergraph":"{\\"metadata\\":{\\"a\\":1}}"}}', "incomplete"),
        ('{"__metadata__":{"addergraph":"{"}}', "not JSON"),
    ],
)
def test_other_headers_are_refused(tmp_path: Path, header: str, said: str) -> None:
    with pytest.raises(StorageError, match=said):
        storage.load(_with_header(tmp_path / "m", header))


def test_a_plain_safetensors_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"w": np.zeros(2, np.float32)}, tmp_path / "m")
    with pytest.raises(StorageError, match=r"not written by AdderGraph"):
        storage.load(tmp_path / "m")


def test_a_changed_tensor_behind_a_valid_header_is_noticed(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    start = (
        header["adder1.f"]["data_offsets"][0]
        + len(data)
        - max(h["data_offsets"][1] for k, h in header.items() if k != "__metadata__")
    )
    data[start + 2] ^= 0x40
    saved.write_bytes(data)
    with pytest.raises(StorageError, match=r"sha256"):
        storage.load(saved)


def test_other_dtypes_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r'"w" is float64; a file holds f32'):
        storage.save(tmp_path / "m", {"w": np.zeros(2)}, {})
    assert list(tmp_path.iterdir()) == []


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*nowhere"):
        storage.load(tmp_path / "nowhere")
    with pytest.raises(StorageError, match=r"no folder .*missing"):
        storage.save(tmp_path / "missing" / "m", {}, {})
    with pytest.raises(StorageError, match=r"it is a folder"):
        storage.save(tmp_path, {}, {})


def test_an_unwritable_folder_is_one_clear_error() -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("needs a folder that even root cannot write")
    with pytest.raises(StorageError, match=r"cannot write .*permissions"):
        storage.atomic_write("/proc/self/model", b"x")


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_failed_save_keeps_the_old_file_and_cleans_up(
    saved: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    before = saved.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(StorageError, match=r"No space left"):
        storage.save(saved, {"w": np.zeros(2, np.float32)}, {})
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


@pytest.mark.skipif(os.name != "posix", reason="kills itself with SIGKILL")
@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_killed_save_keeps_the_old_file(saved: Path, moment: str) -> None:
    program = (
        "import os, signal\n"
        "from addergraph.files import storage\n"
        f"os.{moment} = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"storage.atomic_write({str(saved)!r}, b'x' * 100000)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert storage.load(saved)[1] == METADATA


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_a_symbolic_link_stays_one(saved: Path) -> None:
    link = saved.with_name("latest")
    link.symlink_to(saved)
    storage.save(link, {"w": np.ones(1, np.float32)}, {})
    assert link.is_symlink() and list(storage.load(saved)[0]) == ["w"]


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
@pytest.mark.parametrize("depth", ["the file", "a folder on the way", "missing"])
def test_a_link_that_another_user_planted_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: str
) -> None:
    """In a folder like /tmp: what the kernel refuses to follow, and more than it."""
    shared, mine = tmp_path / "shared", tmp_path / "mine"
    for folder in (shared, mine):
        folder.mkdir()
    shared.chmod(0o1777)
    (mine / "precious").write_bytes(b"precious")
    link, path = shared / "model", shared / "model"
    if depth == "the file":
        link.symlink_to(mine / "precious")
    elif depth == "missing":
        link.symlink_to(mine / "new")
    else:
        link.symlink_to(mine)
        path = link / "precious"
    storage.atomic_write(path, b"precious")  # one's own link may stand there
    give_away(link, monkeypatch)
    for write in (storage.require_writable, lambda path: storage.atomic_write(path, b"")):
        with pytest.raises(StorageError, match="is a link that another user .uid 54321. put there"):
            write(path)
    assert (mine / "precious").read_bytes() == b"precious"
    shared.chmod(0o755)  # nobody else could have put it there
    storage.atomic_write(path, b"new")
    assert link.is_symlink()


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_paths_are_resolved_as_the_kernel_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "to").symlink_to("a/b")
    (tmp_path / "a" / "b" / "up").symlink_to(f"../../{tmp_path.name}/../to/../x")
    (tmp_path / "absolute").symlink_to(tmp_path / "to")
    monkeypatch.chdir(tmp_path)
    for path in ("to/f", "absolute/f", "to/../f", "./a/../to/f", "to/up", "f", ".", "/"):
        assert storage._resolved(Path(path)) == Path(os.path.realpath(path)), path
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StorageError, match=r'cannot write "loop/x": Too many levels'):
        storage.atomic_write("loop/x", b"")


# -- what a system does not have -------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="folders are not synced")
@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_fsync_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    storage.atomic_write(tmp_path / "f", b"x")
    assert (tmp_path / "f").read_bytes() == b"x" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(os.name != "posix", reason="folders are not synced")
def test_a_failing_disk_is_told_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fail(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match=r'f" is written, but .*Input/output error'):
        storage.atomic_write(tmp_path / "f", b"x")
    assert (tmp_path / "f").read_bytes() == b"x"


@pytest.mark.skipif(os.name != "posix", reason="folders are not synced")
def test_a_folder_that_may_be_written_but_not_read_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def guarded(path: Path, flags: int, *rest: int) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", guarded)
    storage.atomic_write(tmp_path / "f", b"x")
    assert (tmp_path / "f").read_bytes() == b"x"


@pytest.mark.parametrize("write", ["atomic_write", "require_writable"])
def test_cleaning_up_does_not_hide_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    """On a read-only file system neither writing works nor removing."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("open", "unlink"):
        monkeypatch.setattr(os, name, fail)
    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(StorageError, match="cannot write .*Read-only file system; check"):
        getattr(storage, write)(tmp_path / "f", *[b"x"] * (write == "atomic_write"))


def test_a_folder_that_has_gone_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(StorageError, match='cannot write "f"'):
        storage.atomic_write("f", b"x")


def test_a_path_may_start_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    storage.save("~/m", TENSORS, METADATA)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    assert storage.load("~/m")[1] == METADATA
    assert storage.user_path("~nobody-of-that-name/x") == Path("~nobody-of-that-name/x")


def test_a_name_may_be_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    longest = tmp_path / ("ü" * 127)
    storage.atomic_write(longest, b"x")
    assert [p.name for p in tmp_path.iterdir()] == [longest.name]
    with pytest.raises(StorageError, match="too long"):
        storage.atomic_write(tmp_path / ("n" * 256), b"x")


@pytest.mark.skipif(os.name != "posix", reason="permissions and pipes")
def test_a_file_keeps_its_permissions(tmp_path: Path) -> None:
    for mode in (0o600, 0o640, 0o666):
        path = tmp_path / oct(mode)
        path.write_bytes(b"old")
        path.chmod(mode)
        storage.atomic_write(path, b"new")
        assert path.read_bytes() == b"new" and path.stat().st_mode & 0o777 == mode


@pytest.mark.skipif(os.name != "posix", reason="permissions and pipes")
def test_what_is_no_plain_file_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for write in (storage.require_writable, lambda path: storage.atomic_write(path, b"")):
        with pytest.raises(StorageError, match="it is a device, pipe or socket"):
            write(pipe)
    assert pipe.is_fifo() and [p.name for p in tmp_path.iterdir()] == ["pipe"]


def test_a_tensor_file_is_known_by_its_name_or_its_first_bytes(saved: Path, tmp_path: Path) -> None:
    other = tmp_path / "no_suffix"
    other.write_bytes(saved.read_bytes())
    text = tmp_path / "graph.ag"
    text.write_text("graph g(%x: f32[4]) {}")
    assert storage.is_tensor_file(other) and storage.is_tensor_file("missing.safetensors")
    assert not storage.is_tensor_file(text) and not storage.is_tensor_file(tmp_path / "missing")


def test_pieces_of_a_file_are_read_anew_each_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    pieces = storage.FilePieces(path)
    for content in (b"first", b"second"):
        path.write_bytes(content)
        assert b"".join(pieces) == content


def test_a_system_without_folders_that_can_be_synced(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = SimpleNamespace(**{**vars(os), "name": "nt"})
    monkeypatch.setattr(storage, "os", elsewhere)
    path = tmp_path / "there.safetensors"
    storage.save(path, TENSORS, METADATA)
    assert path.read_bytes() == saved.read_bytes()
