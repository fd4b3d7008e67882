"""The pickle reader: equal to Python's on what it admits, inert on everything else."""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addergraph.data.pickled import read_pickle
from addergraph.errors import AdderGraphError, DataError, StorageError
from tests.addergraph.data.published import cifar_python, images, labels, python2_pickle

RAW = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 31), (1 << 31) - 1)
    | st.binary(max_size=300)
    | st.lists(st.integers(0, 9), max_size=300),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.binary(max_size=5), inner, max_size=4)
        | st.tuples(inner, inner)
    ),
    max_leaves=12,
)
ARRAYS = st.builds(
    lambda shape, fortran, seed: np.asarray(
        np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8),
        order="F" if fortran else "C",
    ),
    st.lists(st.integers(0, 4), min_size=1, max_size=3).map(tuple),
    st.booleans(),
    st.integers(0, 9),
)
DICTS = st.dictionaries(st.binary(max_size=8), RAW | ARRAYS, max_size=5)


def _texts(value: Any) -> Any:
    """Dict keys as text, as the reader gives them."""
    if isinstance(value, dict):
        return {
            k.decode("latin-1") if isinstance(k, bytes) else k: _texts(v) for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(_texts(v) for v in value)
    return value


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return type(a) is type(b) and a.dtype == b.dtype and np.array_equal(a, b)
    return type(a) is type(b) and a == b


@given(DICTS)
def test_files_of_python_2_read_as_python_reads_them(content: dict[bytes, Any]) -> None:
    data = python2_pickle(content)
    expected = pickle.loads(data, encoding="bytes")  # so the generator writes true pickles
    assert all(_same(expected[k], content[k]) for k in content)
    found, expected = read_pickle(data, '"f"'), _texts(expected)
    assert list(found) == list(expected)
    assert all(_same(found[k], expected[k]) for k in expected)


@pytest.mark.slow
@given(
    st.dictionaries(
        st.text(max_size=8),
        st.lists(st.integers()) | st.text() | ARRAYS.filter(lambda array: array.size),
        max_size=5,
    )
)
def test_files_of_python_3_read_as_python_reads_them(content: dict[str, Any]) -> None:
    data = pickle.dumps(content, protocol=2)
    found = read_pickle(data, '"f"')
    assert list(found) == list(content) and all(_same(found[k], content[k]) for k in content)


def _set_of_dicts(key: bytes) -> bytes:
    return b"\x80\x02}" + key + b"K\x01s."


NESTED = b"\x80\x02}q\x00(U\x01a" + b"(" * 100_000 + b"t" * 100_000 + b"u."


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x02cbuiltins\neval\n(U\x011tR.", r'the global "builtins\.eval"'),
        (b"\x80\x02cnumpy\nload\n(U\x011tR.", r'the global "numpy\.load"'),
        (b"\x80\x02cnumpy.core.multiarray\nscalar\n.", r'"numpy\.core\.multiarray\.scalar"'),
        (b"\x80\x02(cos\nsystem\nU\x02lso.", r'the global "os\.system"'),
        (b"(S'ls'\nios\nsystem\n.", r"the pickle instruction STRING"),
        (b"\x80\x02(ios\nsystem\n.", r"the pickle instruction INST"),
        (b"\x80\x02cnumpy\ndtype\n)\x81.", r"the pickle instruction NEWOBJ"),
        (b"\x80\x02U\x01aQ.", r"the pickle instruction BINPERSID"),
        (b"\x80\x02\x82\x01.", r"the pickle instruction EXT1"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", r"pickle protocol 4"),
        (b"\x80\x02}(K\x01K\x02u.", r"a dict key that is no short text"),
        (_set_of_dicts(b")"), r"a dict key that is no short text"),
        (_set_of_dicts(b"T" + (300).to_bytes(4, "little") + b"a" * 300), r"no short text"),
        (b"\x80\x02K\x01K\x02a.", r"items appended to what is no list"),
        (b"\x80\x02]U\x01aK\x02s.", r"keys given to what is no dict"),
        (b"\x80\x02}(U\x01au.", r"keys given to what is no dict"),
        (b"\x80\x02K\x01)R.", r"a call of what is no function"),
        (b"\x80\x02cnumpy\ndtype\nK\x01R.", r"a call of what is no function"),
        (b"\x80\x02cnumpy\ndtype\n}U\x01aK\x01sb.", r"state given to what is no array"),
        (b"\x80\x02K\x01.", r"does not hold one dict"),
        (b"\x80\x02}}.", r"does not hold one dict"),
        (b"\x80\x02(}.", r"does not hold one dict"),
        (b"\x80\x02}U\x01acnumpy\ndtype\n)Rs.", r'"a" is no NumPy array'),
    ],
)
def test_everything_else_is_refused_by_name(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf'^"f".*{message}'):
        read_pickle(data, '"f"')


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        b"\x80\x02",
        b"\x80\x02}",
        b"\x80\x02.\xff"[:2] + b"\xff.",
        b"\x80\x02e.",
        b"\x80\x02h\x05.",
        b"\x80\x02q\x05.",
        b"\x80\x02\x87.",
        b"\x80\x02s.",
        b"\x80\x02T\xff\xff\xff\x7fab.",
        b"\x80\x02T\xff\xff\xff\xffab.",
        b"\x80\x02cos\n",
    ],
)
def test_what_does_not_fit_together_is_damage(data: bytes) -> None:
    with pytest.raises(StorageError, match=r'^"f" is damaged'):
        read_pickle(data, '"f"')


def test_depth_and_memo_numbers_cost_nothing() -> None:
    assert isinstance(read_pickle(NESTED, '"f"')["a"], tuple)
    far = b"\x80\x02}r\xff\xff\xff\xff."  # Python's own would make a table of 2^32 entries
    assert read_pickle(far, '"f"') == {}


def _array(replace: Callable[[bytes], bytes]) -> bytes:
    return replace(python2_pickle({b"data": np.arange(6, dtype=np.uint8).reshape(2, 3)}))


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        (b"U\x02u1", b"U\x02O8", DataError, r'dtype "O8"; expected unsigned bytes'),
        (b"U\x02u1", b"K\x01", DataError, r'dtype ""'),
        (b"(K\x02K\x03t", b"(K\x02K\x04t", StorageError, r"shape \(2, 4\) has 8 bytes, here are 6"),
        (b"(K\x02K\x03t", b"(J\xff\xff\xff\xffK\x03t", DataError, r"no NumPy array"),
        (b"(K\x02K\x03t", b"(\x88K\x06t", DataError, r"no NumPy array"),
        (b"(K\x02K\x03t", b"(U\x01aK\x03t", DataError, r"no NumPy array"),
        (b"U\x06\0\1\2\3\4\5", b"]", DataError, r"no bytes as its content"),
        (b"U\x06\0\1\2\3\4\5", b"c_codecs\nencode\n)R", DataError, r"no bytes"),
        (
            b"U\x06\0\1\2\3\4\5",
            b"c_codecs\nencode\nX\x03\0\0\0\xe2\x82\xacX\x06\0\0\0latin1\x86R",
            StorageError,
            r"damaged: 'latin-1' codec can't encode",
        ),
        (b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", DataError, r"no NumPy array"),
        (b"cnumpy.core.multiarray\n_reconstruct", b"cnumpy\nndarray", DataError, r"no NumPy"),
    ],
)
def test_arrays_that_are_none(old: bytes, new: bytes, error: type[Exception], message: str) -> None:
    data = _array(lambda whole: whole)
    assert old in data and "data" in read_pickle(data, '"f"')
    with pytest.raises(error, match=rf'"f", "data".*{message}'):
        read_pickle(data.replace(old, new), '"f"')


def _assert_error_or_dict(data: bytes) -> None:
    found = _read(data)
    if isinstance(found, str):
        assert found.startswith('"f"')
    else:
        assert all(isinstance(key, str) for key in found)


def _read(data: bytes) -> dict[str, Any] | str:
    """The content, or the message of the error."""
    try:
        return read_pickle(data, '"f"')
    except AdderGraphError as error:
        return str(error)


WHOLE = cifar_python(images(2, (2, 2, 3)), labels(2, 10), 10)


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4
    ),
    st.integers(0, len(WHOLE)),
)
def test_any_damage_is_an_error_of_ours_or_plain_data(
    changes: list[tuple[int, int]], end: int
) -> None:
    data = bytearray(WHOLE)
    for place, value in changes:
        data[place] = value
    for broken in (bytes(data), bytes(data[:end])):
        _assert_error_or_dict(broken)


@settings(max_examples=150)
@given(st.lists(st.sampled_from(pickletools.opcodes), max_size=12), st.data())
def test_any_instructions_are_an_error_of_ours_or_plain_data(
    opcodes: list[Any], data: st.DataObject
) -> None:
    body = b"".join(
        op.code.encode("latin-1") + data.draw(st.sampled_from([b"", b"\x01", b"\x01a", b"a\nb\n"]))
        for op in opcodes
    )
    _assert_error_or_dict(b"\x80\x02}(U\x01a" + body + b"u.")
