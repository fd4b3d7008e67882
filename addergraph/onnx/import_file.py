"""An ONNX file, which is untrusted data, as a message whose parts can be read without surprise.

Before the protobuf library sees a byte, a walk over the wire format counts: fields, the depth of
messages, text that is no text. A few bytes of a file can ask for hundreds of memory otherwise.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import border
from ..errors import StorageError, UnsupportedError
from ..files import storage
from .package import require_onnx

if TYPE_CHECKING:
    import onnx

OPSETS = (7, 28)  # of the standard domain: what the tests read
STANDARD = ("", "ai.onnx")
LARGEST = (1 << 31) - 1  # bytes of a message; protobuf's own limit
MOST_FIELDS = 1 << 19  # of all messages in a file, each some hundred bytes of memory
DEEPEST = 32  # messages in messages; a graph of tensors has 6
LONGEST_TEXT = 1 << 20
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10


def read_model(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """The model in the file `path`.

    StorageError for a file that cannot be read, is damaged or is none; UnsupportedError for one
    that is too large, of an opset outside OPSETS, or where the package onnx is missing.
    """
    package = require_onnx(f'reading "{path}"')
    from google.protobuf.message import DecodeError

    size = _size(path)
    if size > LARGEST:
        raise UnsupportedError(
            f'"{path}" has {size:,} bytes, at most {LARGEST:,} are read; keep large weights in a '
            "file beside it (external data)"
        )
    border.require_memory(f'reading "{path}"', 3 * size)
    data = storage.read_bytes(path)
    _scan(path, memoryview(data), package.ModelProto.DESCRIPTOR)
    model: onnx.ModelProto = package.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise StorageError(f'"{path}" is damaged, or no ONNX file ({error})') from None
    if not model.HasField("graph") or not model.opset_import:
        raise StorageError(
            f'"{path}" is no ONNX model: it has no graph or does not say which operators it uses'
        )
    return model


def opset_of(path: str | os.PathLike[str], model: onnx.ModelProto) -> int:
    """The version of the standard operators; 0 where the file uses none.

    StorageError where it is said twice, UnsupportedError for a version outside OPSETS.
    """
    found: list[int] = [entry.version for entry in model.opset_import if entry.domain in STANDARD]
    if len(set(found)) > 1:
        raise StorageError(f'"{path}" is damaged: it states several opsets, {found[:5]}')
    if not found:
        return 0
    least, most = OPSETS
    if not least <= found[0] <= most:
        raise UnsupportedError(
            f'"{path}" has opset {found[0]}, this version reads {least} to {most}: export it with '
            f"another one (torch.onnx.export(..., opset_version={min(most, 20)})), or convert it "
            "with onnx.version_converter"
        )
    return found[0]


def require_inputs(node: onnx.NodeProto, opset: int) -> None:
    """StorageError for a standard operator that the opset has not, and for another number of
    inputs than it takes: what is beyond them would be ignored."""
    from onnx import defs

    if not opset:
        raise StorageError("the file does not say of which opset its standard operators are")
    try:
        schema = defs.get_schema(node.op_type, opset, "")
    except defs.SchemaError:
        raise StorageError(f"opset {opset} has no operator {node.op_type}") from None
    if schema.deprecated:
        raise StorageError(f"opset {opset} has no operator {node.op_type} any more")
    least, most = schema.min_input, schema.max_input
    if not least <= len(node.input) <= most:
        takes = f"{least}" if least == most else f"{least} to {most}"
        raise StorageError(f"it has {len(node.input)} inputs, {node.op_type} takes {takes}")


def _size(path: str | os.PathLike[str]) -> int:
    try:
        return storage.user_path(path).stat().st_size
    except OSError as error:
        raise StorageError(f'cannot read "{path}": {error.strerror or error}') from None


# --- the wire format ------------------------------------------------------------------------------


def _scan(path: str | os.PathLike[str], data: memoryview, descriptor: Any) -> None:
    """StorageError or UnsupportedError unless `data` is a message that is worth its length."""
    kinds: dict[str, dict[int, Any]] = {}
    count = 0

    def walk(message: Any, inside: memoryview, depth: int) -> None:
        nonlocal count
        if depth > DEEPEST:
            raise UnsupportedError(f'"{path}": messages are nested more than {DEEPEST} deep')
        fields = kinds.setdefault(message.full_name, dict(message.fields_by_number))
        for number, content in _fields(path, inside):
            count += 1
            if count > MOST_FIELDS:
                raise UnsupportedError(
                    f'"{path}" has more than {MOST_FIELDS:,} fields, which no network needs'
                )
            field = fields.get(number)
            if field is None or content is None:
                continue
            if field.message_type is not None:
                walk(field.message_type, content, depth + 1)
            elif field.type == field.TYPE_STRING:
                _require_text(path, field.name, content)

    walk(descriptor, data, 1)


def _require_text(path: str | os.PathLike[str], name: str, content: memoryview) -> None:
    if len(content) > LONGEST_TEXT:
        raise UnsupportedError(f'"{path}": a {name} has more than {LONGEST_TEXT:,} bytes')
    try:
        bytes(content).decode()
    except UnicodeDecodeError:
        raise StorageError(f'"{path}" is damaged: a {name} is no text') from None


def _fields(
    path: str | os.PathLike[str], data: memoryview
) -> Iterator[tuple[int, memoryview | None]]:
    """Number and content of each field of a message; the content of numbers is None."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(path, data, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            at = _varint(path, data, at)[1]
            yield number, None
            continue
        if kind not in (_FIXED64, _BYTES, _FIXED32) or not number:
            raise StorageError(f'"{path}" is damaged, or no ONNX file (a field of kind {kind})')
        size = {_FIXED64: 8, _FIXED32: 4}.get(kind, 0)
        if kind == _BYTES:
            size, at = _varint(path, data, at)
        if size > end - at:
            raise StorageError(
                f'"{path}" is truncated or damaged: a field of {size:,} bytes has {end - at:,}'
            )
        yield number, data[at : at + size] if kind == _BYTES else None
        at += size


def _varint(path: str | os.PathLike[str], data: memoryview, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and where it ends."""
    if at < len(data) and data[at] < 0x80:  # nearly always
        return data[at], at + 1
    value = 0
    for place, byte in enumerate(data[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise StorageError(f'"{path}" is truncated or damaged: a number has no end')


# --- files beside it ------------------------------------------------------------------------------


def external_bytes(path: str | os.PathLike[str], name: str, entries: dict[str, str]) -> bytes:
    """What a tensor keeps in another file, which has to lie in the folder of the model or below.

    entries  of its `external_data`: location, and in decimal offset and length
    """
    where = f'"{path}": the tensor "{name}" is kept outside, and'
    folder = storage.user_path(path).resolve().parent
    location = entries.get("location", "")
    file = _confined(where, folder, location)
    try:
        status = file.stat()
    except OSError as error:
        raise StorageError(f'{where} "{location}" cannot be read ({error.strerror})') from None
    if not stat.S_ISREG(status.st_mode):
        raise StorageError(f'{where} "{location}" is no plain file')
    offset = _decimal(where, "offset", entries.get("offset", "0"))
    length = _decimal(where, "length", entries.get("length", str(max(0, status.st_size - offset))))
    if offset + length > status.st_size:
        raise StorageError(
            f'{where} "{location}" is truncated: it has {status.st_size:,} bytes, bytes {offset:,} '
            f"to {offset + length:,} are wanted"
        )
    border.require_memory(f'reading "{location}"', 2 * length)
    try:
        with open(file, "rb") as opened:
            opened.seek(offset)
            return opened.read(length)
    except OSError as error:
        raise StorageError(f'{where} "{location}" cannot be read ({error.strerror})') from None


def _confined(where: str, folder: Path, location: str) -> Path:
    """The file of that name; StorageError for one that is not below `folder`, links followed."""
    said = Path(location)
    if not location or "\0" in location or said.is_absolute() or ".." in said.parts:
        raise StorageError(
            f"{where} {border.shown(location)} is no name of a file in the folder of the model"
        )
    try:
        file = (folder / said).resolve()
    except (OSError, RuntimeError):  # links in a circle
        raise StorageError(f'{where} "{location}" cannot be followed') from None
    if not file.is_relative_to(folder):
        raise StorageError(f'{where} "{location}" leads out of the folder of the model')
    return file


def _decimal(where: str, name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise StorageError(f"{where} its {name} is {border.shown(text)}, expected a count of bytes")
    return int(text)
