"""`folder:PATH`: class folders of images, and what people have in them."""

from __future__ import annotations

import contextlib
import os
import tracemalloc
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from addergraph import Model
from addergraph.data import Dataset, folder, load
from addergraph.errors import DataError, DataWarning, MemoryLimitError, StorageError
from addergraph.ir import Array
from addergraph.memory import Available
from tests.addergraph.data.published import images
from tests.addergraph.shell import Shell

PIL = pytest.importorskip("PIL.Image")
SHAPE = (4, 6, 3)
FOUR = images(4, SHAPE)


def _write(root: Path, *names: str, pixels: Array | None = None, **how: Any) -> Path:
    """An image in each of these files; number i is that of FOUR, in turn."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.fromarray(FOUR[number % 4] if pixels is None else pixels).save(root / name, **how)
    return root


def _load(root: Path, options: str = "") -> Dataset:
    return load(f"folder:{root}{options}")


def _assert_refused(root: Path, message: str, options: str = "", error: Any = DataError) -> None:
    with pytest.raises(error, match=message):
        _load(root, options)


def test_class_folders_alone_are_all_to_train_on(tmp_path: Path) -> None:
    d = _load(_write(tmp_path / "pets", "dog/b.png", "cat/2.bmp", "cat/1.ppm", "dog/a.PNG"))
    assert (d.name, d.classes, d.shape, d.scale) == ("pets", ("cat", "dog"), SHAPE, 1 / 255)
    assert np.array_equal(d.x_train, FOUR[[2, 1, 3, 0]]) and d.y_train.tolist() == [0, 0, 1, 1]
    assert d.x_train.dtype == np.uint8 and d.y_train.dtype == np.int64
    assert d.x_test.shape == d.x_val.shape == (0, *SHAPE)


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_parts_share_the_numbers_of_the_training_part(tmp_path: Path, name: str) -> None:
    files = ("Train/a/1.png", "Train/b/1.png", f"{name}/b/1.png", "test/b/1.png")
    d = _load(_write(tmp_path, *files))
    assert d.classes == ("a", "b") and d.y_train.tolist() == [0, 1]
    assert d.y_val.tolist() == d.y_test.tolist() == [1]
    assert np.array_equal(d.x_val[0], FOUR[2]) and np.array_equal(d.x_test[0], FOUR[3])


def test_names_of_any_script_are_kept_and_equal_letters_are_equal(tmp_path: Path) -> None:
    one, other = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    assert one != other
    names = ("犬/1.png", f"train/{other}/1.png", f"test/{one}/1.png", "train/犬/ё.png")
    d = _load(_write(tmp_path, *names[1:]))
    assert d.classes == (one, "犬") and d.y_test.tolist() == [0]
    _write(tmp_path, f"train/{one}/1.png")
    if len(os.listdir(tmp_path / "train")) == 3:  # else the file system has one form alone
        _assert_refused(tmp_path, r"two folders of the same name, .* in two codings")


def test_images_are_grey_only_where_all_are(tmp_path: Path) -> None:
    grey = FOUR[0, ..., 0]
    _write(tmp_path, "a/1.png", "b/1.pgm", pixels=grey)
    assert np.array_equal(_load(tmp_path).x_train[1], grey[..., None])
    assert _load(tmp_path, "?channels=3").shape == SHAPE
    _write(tmp_path, "b/2.png")
    d = _load(tmp_path)
    assert d.shape == SHAPE and np.array_equal(d.x_train[0], grey[..., None].repeat(3, 2))
    assert _load(tmp_path, "?channels=1").shape == (4, 6, 1)


def test_images_are_turned_upright_before_sizes_are_compared(tmp_path: Path) -> None:
    exif = PIL.Exif()
    exif[0x0112] = 6
    turned = np.ascontiguousarray(np.rot90(FOUR[0]))
    _write(tmp_path, "a/1.png", pixels=turned, exif=exif)
    d = _load(_write(tmp_path, "b/1.png"))
    assert np.array_equal(d.x_train[0], FOUR[0]) and d.shape == SHAPE


def test_other_sizes_are_named_and_brought_to_one(tmp_path: Path) -> None:
    _write(tmp_path, "a/1.png")
    _write(tmp_path, "b/1.png", pixels=np.full((8, 8, 3), 90, np.uint8))
    _assert_refused(tmp_path, r'a/1\.png" 4x6 .*b/1\.png" 8x8; bring them to one, as .*\?size=4x6"')
    stretched, padded = _load(tmp_path, "?size=4x6"), _load(tmp_path, "?size=4x6,how=pad")
    assert stretched.shape == padded.shape == SHAPE
    assert np.array_equal(stretched.x_train[0], FOUR[0]) and (stretched.x_train[1] == 90).all()
    assert (padded.x_train[1, :, 1:5] == 90).all() and not padded.x_train[1, :, [0, 5]].any()
    assert _load(tmp_path, "?how=crop,size=2x3").shape == (2, 3, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("?sise=4x4", r'"sise=4x4" in .*\(did you mean "size"\?\): expected \?size=HxW'),
        ("?size", r'"size" in "folder:'),
        ("?", r'"" in "folder:'),
        ("?size=4x4,size=4x4", r"each at most once"),
        ("?size=4x4?broken=skip", r'options stand behind one "\?", with "," between'),
        ("?size=4", r'size="4" must be HEIGHTxWIDTH'),
        ("?size=0x4", r"size=\(0, 4\): expected height and width of at least 1"),
        ("?size=100000x100000", r"size=\(100000, 100000\).*at most 100,000,000 pixels"),
        ("?how=crop", r'"how=crop" says how images come to a size: give size=HxW, too'),
        ("?size=4x4,how=cut", r"unknown how 'cut'"),
        ("?channels=2", r"unknown channels '2'; known: 1, 3"),
        ("?broken=keep", r"unknown broken 'keep' .*known: refuse, skip"),
    ],
)
def test_options_that_say_nothing(tmp_path: Path, options: str, message: str) -> None:
    _assert_refused(_write(tmp_path, "a/1.png", "b/1.png"), message, options)


def test_a_folder_may_have_a_question_mark(tmp_path: Path) -> None:
    root = _write(tmp_path / "what?size=1x1", "a/1.png", "b/1.png")
    assert _load(root).shape == SHAPE
    assert _load(root, "?size=2x2").shape == (2, 2, 3)


def test_broken_images_are_all_counted_and_five_named(tmp_path: Path) -> None:
    names = [f"a/{number}.png" for number in range(9)]
    _write(tmp_path, *names, "b/1.png", pixels=images(1, (40, 40, 3))[0])
    for number, name in enumerate(names[1:8]):  # in the header of the first, in the pixels of all
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: 20 if number < 1 else len(data) // 2])
    _assert_refused(tmp_path, r'images that cannot be read \(1\): ".*a/1\.png" is .*\?broken=skip')
    (tmp_path / names[1]).unlink()
    _assert_refused(
        tmp_path, r'cannot be read \(6\): .*2\.png.*6\.png" is [^;]*; and 1 more\. Mend'
    )
    with pytest.warns(DataWarning, match=r"cannot be read \(6\): .*They are left out"):
        d = _load(tmp_path, "?broken=skip")
    assert d.y_train.tolist() == [0, 0, 1]
    for name in ("a/0.png", "a/8.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.warns(DataWarning):
        _assert_refused(tmp_path, r'a" has no images', "?broken=skip")


def test_faults_of_all_kinds_are_told_at_once(tmp_path: Path) -> None:
    root = _write(tmp_path / "d", "a/1.png", "b/1.png")
    _write(root, "b/2.png", pixels=np.zeros((6, 6), np.uint8))
    (root / "a" / "2.png").write_bytes(b"none")
    for name in "cde":
        (root / name).mkdir()
    with pytest.raises(DataError) as told:
        _load(root)
    sizes, broken, *empty = str(told.value).split("\nAlso: ")
    assert sizes.startswith("images have different sizes: ") and "(1): " in broken
    assert [fault.split('" has no images')[0][-1] for fault in empty] == ["c", "d", "e"]


def test_other_files_are_said_and_those_of_systems_are_not(tmp_path: Path) -> None:
    _write(tmp_path, "a/1.png", "b/1.png", "b/.hidden.png", ".git/x/1.png")
    for name in (".DS_Store", "a/Thumbs.db", "b/desktop.ini", "b/._1.png"):
        (tmp_path / name).write_bytes(b"x")
    assert len(_load(tmp_path).x_train) == 2
    for name in ("labels.csv", "a/1.webp"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.warns(DataWarning, match=r"no class folders or images \(2\): .*labels\.csv"):
        assert len(_load(tmp_path).x_train) == 2


def test_images_below_a_class_folder_belong_to_it(tmp_path: Path) -> None:
    d = _load(_write(tmp_path, "a/2.png", "b/1.png", "a/x/y/1.png"))
    assert d.y_train.tolist() == [0, 0, 1] and np.array_equal(d.x_train[1], FOUR[2])


def test_an_animation_is_its_first_frame_and_said(tmp_path: Path) -> None:
    _write(tmp_path, "a/1.png", save_all=True, append_images=[PIL.fromarray(FOUR[1])])
    _write(tmp_path, "b/1.png")
    with pytest.warns(DataWarning, match=r"animations, whose first frame is taken \(1\): "):
        assert np.array_equal(_load(tmp_path).x_train, FOUR[[0, 0]])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), r"has no class folders; put the images of each class into a folder"),
        (("1.png",), r"has no class folders; put the images"),
        (("a/1.png", "b/1.png", "1.png"), r'images beside its class folders: ".*1\.png"; put'),
        (("a/1.png",), r'has one class, "a": .* at least two'),
        (("a/1.png", "b/"), r'/b" has no images \(\.png, .*remove the folder'),
        (("test/a/1.png", "test/b/1.png"), r'has "test" and no "train": expected the folders'),
        (("train/1.png", "test/a/1.png"), r'train" has no class folders'),
        (("train/a/1.png", "train/b/1.png", "val/a/1.png", "valid/a/1.png"), r"expected one"),
        (
            ("train/a/1.png", "train/b/1.png", "val/c/1.png", "val/d/1.png", "val/e/"),
            r'the training part has no class "c, d", which "val" has',
        ),
    ],
)
def test_folders_that_are_no_data_set(tmp_path: Path, files: tuple[str, ...], message: str) -> None:
    for name in files:
        if name.endswith("/"):
            (tmp_path / name).mkdir(parents=True)
        else:
            _write(tmp_path, name)
    _assert_refused(tmp_path, message)


def test_held_out_parts_may_lack_classes_and_folders_beside_parts_are_said(tmp_path: Path) -> None:
    _write(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png", "more/a/1.png")
    (tmp_path / "test" / "c").mkdir()
    (tmp_path / "train" / "a" / "x.gif").write_bytes(b"GIF89a")
    with pytest.warns(DataWarning) as said:
        assert _load(tmp_path).y_test.tolist() == [0]
    (one,) = said
    assert "left out, as no class folders or images (2): " in str(one.message)
    assert f'"{tmp_path / "more"}"; ' in str(one.message)
    assert str(one.message).endswith("; .gif is not read: convert such files to PNG")


def test_a_class_of_pictures_that_are_not_read_says_so(tmp_path: Path) -> None:
    _write(tmp_path, "a/1.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.GIF").write_bytes(b"GIF89a")
    with pytest.warns(DataWarning, match="left out"):
        _assert_refused(
            tmp_path, r'b" has no images .*; \.gif is not read: convert such files to PNG'
        )


def test_folders_that_cannot_be_read(tmp_path: Path) -> None:
    _assert_refused(
        tmp_path / "nowhere", r'cannot read folder ".*nowhere": No such', error=StorageError
    )
    (tmp_path / "file").write_bytes(b"")
    _assert_refused(tmp_path / "file", r"cannot read folder .*Not a directory", error=StorageError)
    with pytest.raises(DataError, match=r"cannot be verified"):
        load(f"folder:{tmp_path}", verify=True)
    with pytest.raises(DataError, match=r'\(a folder of images\? say "folder:'):
        load(str(tmp_path))


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    root = _write(tmp_path / "set", "b/1.png")
    _write(tmp_path / "else", "x/1.png", "x/2.png")
    (root / "a").symlink_to(tmp_path / "else" / "x")
    (root / "b" / "2.png").symlink_to(root / "b" / "1.png")
    assert _load(root).y_train.tolist() == [0, 0, 1, 1]
    (root / "b" / "3.png").symlink_to("3.png")
    _assert_refused(root, r'cannot be read \(1\): .*b/3\.png": ')
    (root / "b" / "3.png").unlink()
    (root / "b" / "again").symlink_to(root / "b")
    _assert_refused(root, r"folders are 16 deep here; a link may lead back")


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
def test_a_class_has_a_name_of_text(tmp_path: Path) -> None:
    _write(tmp_path, "a/1.png", "b/1.png")
    os.rename(tmp_path / "b", os.fsencode(tmp_path) + b"/\xff")
    _assert_refused(tmp_path, r"the name of a class must be UTF-8 text")


def test_memory_is_refused_before_pixels_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoded(*_: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr("addergraph.data.folder.available_memory", lambda: Available(143, "a test"))
    monkeypatch.setattr("addergraph.data.folder.read_image", decoded)
    _write(tmp_path, "a/1.png", "b/1.png")
    said = r"2 images of 4x6x3 bytes take 1\.44e-07 GB; available are .* \(a test\)"
    _assert_refused(tmp_path, said, error=MemoryLimitError)


def test_of_many_files_the_names_alone_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 20_000

    class Entry:
        def __init__(self, number: int) -> None:
            self.name = f"IMG_{number:016d}.jpg"
            self.more = bytes(2000)  # what is not kept

        def is_dir(self) -> bool:
            return False

    @contextlib.contextmanager
    def scandir(path: Path) -> Iterator[Iterator[Entry]]:
        yield (Entry(number) for number in range(count))

    monkeypatch.setattr("addergraph.data.folder.os.scandir", scandir)
    tracemalloc.start()
    try:
        names = list(folder._images(Path("cats"), folder.Losses()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(names) == count and peak < 120 * count


def test_train_on_a_folder_with_a_split(shell: Shell) -> None:
    """The model file keeps the names of the classes."""
    dark = np.zeros((8, 8), np.uint8)
    for name, pixels in (("day", dark + 250), ("night", dark)):
        _write(Path("set"), *(f"{name}/{n}.png" for n in range(10)), pixels=pixels)
    out = shell.ok(
        "train", "--data", "folder:set", "--validation-split", 0.1, "--model", "small-conv",
        "--engine", "reference", "--epochs", 1, "--batch", 6, "-o", "m.safetensors",
    )  # fmt: skip
    assert "folder:set: 18 samples of (8, 8, 1), 2 to validate\n" in out
    model = Model.load("m.safetensors")
    assert model.preprocessing is not None
    assert model.preprocessing.classes == ("day", "night") and model.output_shape == (2,)


def test_each_image_has_its_file(tmp_path: Path) -> None:
    names = ("train/a/2.png", "train/a/10.png", "train/a/x.png", "train/b/1.png", "test/b/1.png")
    root = _write(tmp_path, *names)
    (root / "train/a/x.png").write_bytes(b"no picture")
    with pytest.warns(DataWarning, match="left out"):
        d = _load(root, "?broken=skip")
    own = [str(root / name) for name in ("train/a/10.png", "train/a/2.png", "train/b/1.png")]
    assert list(d.files_train) == own and d.files_test == (str(root / "test/b/1.png"),)
    for file, x in zip(d.files_train, d.x_train, strict=True):
        assert np.array_equal(np.asarray(PIL.open(file)), x)
    parts = d.split(0.5)
    assert parts.files_val and sorted(parts.files_train + parts.files_val) == own
    for file, x in zip(parts.files_val, parts.x_val, strict=True):
        assert np.array_equal(np.asarray(PIL.open(file)), x)
    with pytest.raises(DataError, match="test part: 2 names of files for 1 images"):
        replace(d, files_test=("a", "b"))
