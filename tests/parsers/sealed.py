"""Files around what a fuzzer changed: lengths, sums and digests that fit, so that it gets inside.

An input begins with a letter that says which form the rest has: `r`, the bytes of a file as they
are; another, sections divided by `MARK`, which become a file here.
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
from safetensors.numpy import save as serialize

from addergraph.codegen.export.archive import Member
from addergraph.errors import AdderGraphError
from addergraph.files import storage
from addergraph.ir import Array
from addergraph.ir.text import parse
from tests.codegen.elves import joined as joined_members

MARK = b"\n--\n"
BLANK, PIXELS = b"@P", 3 * 32 * 32  # of a short input, the pixels of an image
MOST_BYTES = 1 << 20  # of the arrays that a graph asks for


def joined(form: str, *parts: bytes | str) -> bytes:
    """An input of this form."""
    raw = [part.encode() if isinstance(part, str) else part for part in parts]
    return form.encode() + MARK.join(raw)


def parts_of(data: bytes) -> tuple[bytes, list[bytes]]:
    return data[:1], data[1:].split(MARK)


def with_pixels(data: bytes) -> bytes:
    return data.replace(BLANK, bytes(PIXELS), 24)


def tensor_file(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """As `storage.save` writes it."""
    content = {"metadata": metadata, "sha256": storage.content_digest(arrays, metadata)}
    return serialize(dict(arrays), metadata={"addergraph": json.dumps(content)})


def model_like(data: bytes, metadata: Mapping[str, str], names: Sequence[str]) -> bytes:
    """A file with an entry for each section, and the arrays that the graph among them asks for:
    all of them (`a`), one too few (`b`) or of another type (`c`)."""
    form, parts = parts_of(data)
    if form == b"r":
        return data[1:]
    texts = [part.decode("utf-8", "surrogateescape") for part in parts]
    found = dict(zip(names, texts, strict=False))
    arrays = _arrays_for(found.get("graph", ""))
    if form == b"b" and arrays:
        arrays.popitem()
    if form == b"c":
        arrays = {name: array.astype(np.int32) for name, array in arrays.items()}
    return tensor_file(arrays, {**metadata, **found})


def _arrays_for(text: str) -> dict[str, Array]:
    try:
        parameters = parse(text).parameters
        if sum(p.type.nbytes for p in parameters) > MOST_BYTES:
            return {}
        return {p.name: np.zeros(p.type.sizes, p.type.dtype.numpy) for p in parameters}
    except AdderGraphError:
        return {}


def foreign_tensors(data: bytes) -> bytes:
    """A safetensors file of this JSON, with as many bytes behind it as it speaks of."""
    form, parts = parts_of(data)
    if form == b"r":
        return data[1:]
    try:
        entries = json.loads(parts[0])
        size = max(entry["data_offsets"][1] for entry in entries.values())
        body = bytes(size if type(size) is int and 0 <= size <= MOST_BYTES else 0)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        body = b""
    return len(parts[0]).to_bytes(8, "little") + parts[0] + body


def zip_archive(data: bytes) -> bytes:
    """Members, a name in the first line of each: stored (`a`) or deflated (`b`)."""
    form, parts = parts_of(data)
    if form == b"r":
        return data[1:]
    packing = zipfile.ZIP_DEFLATED if form == b"b" else zipfile.ZIP_STORED
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", packing) as out:
        for part in parts:
            name, _, content = part.partition(b"\n")
            out.writestr(zipfile.ZipInfo(name.decode("latin-1")[:99]), content, packing)
    return made.getvalue()


def tar_archive(data: bytes) -> bytes:
    """Members, in the first line of each its name, type and stated size, divided by `|`."""
    blocks = []
    for part in data.split(MARK):
        line, _, content = part.partition(b"\n")
        name, kind, size = (line + b"||").split(b"|")[:3]
        content = with_pixels(content)
        block = bytearray(tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT))
        block[:100] = name[:100].ljust(100, b"\0")
        block[124:136] = (size or b"%011o" % len(content))[:12].ljust(12, b"\0")
        block[148:156], block[156:157] = b" " * 8, kind[:1] or b"0"
        block[148:156] = b"%06o\0 " % (sum(block) & 0o777777)
        blocks += [bytes(block), content, bytes(-len(content) % tarfile.BLOCKSIZE)]
    return b"".join([*blocks, bytes(2 * tarfile.BLOCKSIZE)])


def static_archive(data: bytes) -> bytes:
    """Members, a name in the first line of each."""
    form, parts = parts_of(data)
    if form == b"r":
        return data[1:]
    split = (part.partition(b"\n") for part in parts)
    return joined_members([Member(n.decode("latin-1"), [content], ()) for n, _, content in split])
