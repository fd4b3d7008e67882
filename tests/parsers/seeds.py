"""What the fuzzer begins with: for each parser, files as they are written, and their pieces."""

from __future__ import annotations

import gzip
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from addergraph import Model, compiler, layers, ops
from addergraph.codegen.export.archive import Member
from addergraph.data import Normalize, Preprocessing, preprocessing
from addergraph.model import file
from addergraph.quantization import quantized
from addergraph.training import checkpoint, recipes
from tests import borders
from tests.addergraph.data import published
from tests.addergraph.test_quantization import TEXT, network
from tests.codegen import libraries, objects
from tests.codegen.elves import joined as joined_members

from . import sealed
from .targets import MACHINES

FUSED = """graph block(%x: f32[N,8,8,16], %g: bool[]) params(%f: f32[3,3,16,32] init=normal(0,1) eta=0.2,
  %m: f32[32] init=zeros fixed) {  # a comment
  %act1 = fused(%x, %f, %m) : f32[N,8,8,32] {
    graph body(%a0: f32[N,8,8,16], %a1: f32[3,3,16,32], %a2: f32[32]) {
      %v0 = adder2d(%a0, %a1) padding=(1,1,1,1) : f32[N,8,8,32]
      %v1 = mul(%v0, %a2) : f32[N,8,8,32]
      return %v1
    }
  }
  %s = clip(%act1) lo=-inf hi=1e-3 : f32[N,8,8,32]
  %u = add(%m, %m) : f32[32]
  update %m <- %u
  return %s, %g
}"""  # noqa: E501
HEADER = "{'descr': '%s', 'fortran_order': %s, 'shape': %s, }\n"


def seeds(name: str) -> list[bytes]:
    """The first inputs of the parser `name`."""
    return list(_SEEDS[name]())


def _graph() -> Iterator[bytes]:
    for text in (FUSED, TEXT, libraries.NET, libraries.MIXED, libraries.CONSTANT):
        yield text.strip().encode()
    yield str(borders.built().graph(training=False)).encode()
    yield str(compiler.grad(borders.graph(), ["x", "f"])).encode()


def _models() -> Iterator[Model]:
    yield borders.built()
    deep = Model(input_shape=(4, 4, 2), name="deep")
    deep.add(layers.Adder(2, kernel_size=3, padding=1))
    deep.add(layers.BatchNorm())
    deep.add(layers.Residual([layers.Activation("relu"), layers.Adder(2, kernel_size=1)]))
    deep.add(layers.Flatten())
    deep.add(layers.AdderDense(3))
    normalize = Normalize((0.5, 0.5), (1, 2))
    deep.preprocessing = Preprocessing(normalize, classes=("a", "b", "c"))
    yield deep
    yield Model(lambda x: ops.relu(ops.flatten(x)), input_shape=(2, 2, 1), name="function")


def _model() -> Iterator[bytes]:
    for model in _models():
        model.build(model.input_shape)
        found = file.metadata_of(model)
        more = [found[preprocessing.ENTRY]] if preprocessing.ENTRY in found else []
        yield sealed.joined("a", found["graph"], found["model"], *more)
        yield sealed.joined("b", found["graph"], found["model"])
        whole = sealed.tensor_file(dict(model.weights), found)
        yield b"r" + whole


def _quantized() -> Iterator[bytes]:
    known = preprocessing.entry(Preprocessing(Normalize((0.5, 0.5), (1, 2)), classes=("a",)))
    rest = ('{"shift1": 0.25, "multiply": 0.125}', "shift1", *known.values())
    for form in "abc":
        yield sealed.joined(form, TEXT, *rest)
    known = {"format": quantized.FORMAT, "version": quantized.VERSION, "graph": TEXT}
    yield b"r" + sealed.tensor_file(network().weights, known)


def _checkpoint() -> Iterator[bytes]:
    history = {"loss": [2.5], "seconds": [0.5], "accuracy": [0.1]}
    for at in (checkpoint.Position(), checkpoint.Position(1, 3, 0.5, 2, 1.0, 1, 0.1, history)):
        text = json.dumps(vars(at))
        yield sealed.joined("a", text)
        yield sealed.joined("a", text, '{"seed": "0"}', "net", "data")


def _recipe() -> Iterator[bytes]:
    for _, recipe in recipes.BUILT_IN.values():
        yield recipe.text().encode()
    adam = ('epochs = 3\nbatch = 4\n[optimizer]\nkind = "adam"\n[schedule]\nkind = "step"\n'
            "base = 1e-2\n")  # fmt: skip
    yield adam.encode()
    yield adam.replace("step", "polynomial").encode()
    yield adam.replace("step", "constant").encode()


def _log() -> Iterator[bytes]:
    yield b"cepoch,loss,accuracy\n1,2.5,0.5\n2,nan,inf\n"
    yield b'j{"epoch": 1, "loss": 2.5}\n{"epoch": 2, "val_loss": NaN}\n'


def _metadata() -> Iterator[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        libraries.compiled(libraries.CONSTANT).export(folder, shared=False)
        yield (Path(folder) / "metadata.json").read_bytes()
        libraries.compiled(libraries.NET).export(folder, shared=False, overwrite=True)
        found = json.loads((Path(folder) / "metadata.json").read_text())
    yield json.dumps(found | {"files": {"libnet.so": "0" * 64}}).encode()


def _idx() -> Iterator[bytes]:
    for form, array in (("1", np.arange(3)), ("g", np.arange(3)), ("z", np.ones((2, 3, 3)))):
        yield form.encode() + published.idx(array.astype(np.uint8))
    yield b"3" + gzip.compress(published.idx(np.ones((1, 2, 2), np.uint8)), mtime=0)


def _cifar() -> Iterator[bytes]:
    record = b"\3" + sealed.BLANK
    yield b"b" + record * 2
    x, y = published.cifar_batches(10, 1)[0]
    pickled = published.cifar_python(np.zeros_like(x), y, 10)
    yield b"p" + pickled.replace(bytes(sealed.PIXELS), sealed.BLANK)
    for version, content in (("bin", record), ("py", pickled)):
        folder, train, test = published.CIFAR10[version]
        content = content.replace(bytes(sealed.PIXELS), sealed.BLANK)
        members = [f"{folder}/{name}|0|\n".encode() + content for name in (*train, test)]
        yield b"t" + sealed.MARK.join([b"pax|x|\nabc", *members])
    yield b"r" + gzip.compress(sealed.tar_archive(b"a|0|\nabc"), mtime=0)
    yield b"r" + sealed.tar_archive(b"a|0|\nabc")


def _npy(name: str, kind: str, shape: str, nbytes: int, fortran: bool = False) -> bytes:
    header = (HEADER % (kind, fortran, shape)).encode()
    size = len(header).to_bytes(2, "little")
    return name.encode() + b".npy\n\x93NUMPY\1\0" + size + header + bytes(nbytes)


def _npz() -> Iterator[bytes]:
    x, y = _npy("x", "<f4", "(1, 2, 2, 1)", 16, True), _npy("y", "<i8", "(1,)", 8)
    tests = [_npy("x_train", "|u1", "(2, 2, 2)", 8), _npy("y_train", "|u1", "(2, 1)", 2),
             _npy("x_test", "|u1", "(1, 2, 2)", 4), _npy("y_test", "|u1", "(1,)", 1)]  # fmt: skip
    for form in "ab":
        yield form.encode() + sealed.MARK.join([x, y])
        yield form.encode() + sealed.MARK.join(tests)
        yield b"r" + sealed.zip_archive(form.encode() + sealed.MARK.join([x, y]))
    yield b"a" + x


def _state() -> Iterator[bytes]:
    kinds = ("F64", "F32", "BF16", "F16", "I64", "BOOL")
    entries, at = {"__metadata__": {"format": "pt"}}, 0
    for number, kind in enumerate(kinds):
        size = {"F64": 8, "I64": 8, "F32": 4, "BOOL": 1}.get(kind, 2)
        name = ("module.fc.weight", "bn1.bias", "layer1.0.conv1.adder", "a", "b", "c")[number]
        entries[name] = {"dtype": kind, "shape": [2, 1], "data_offsets": [at, at + 2 * size]}  # type: ignore[dict-item]
        at += 2 * size
    text = json.dumps({k: v for k, v in entries.items() if k != "__metadata__"})
    yield b"a" + text.encode()
    whole = sealed.foreign_tensors(b"a" + text.encode())
    yield b"r" + len(json.dumps(entries)).to_bytes(8, "little") + json.dumps(entries).encode()
    yield b"r" + whole
    yield from _torch_files()


def _torch_files() -> Iterator[bytes]:
    try:
        import torch
    except ImportError:
        return
    for old in (False, True):
        made = io.BytesIO()
        state = {"fc.weight": torch.zeros(2, 1), "bn1.bias": torch.zeros(1)}
        torch.save({"net": state}, made, _use_new_zipfile_serialization=not old)
        yield b"r" + made.getvalue()


def _onnx() -> Iterator[bytes]:
    from . import onnx_files

    first = list(onnx_files.seeds())
    yield from first
    for number in range(40 * len(first)):
        yield onnx_files.damaged(first[number % len(first)], number)


def _object(machine: str) -> Iterator[bytes]:
    for text in (objects.CLEAN, objects.CLEAN + objects.PLANTED, objects.CALLING, objects.NEAR):
        yield objects.compiled(text, machine)


def _module() -> Iterator[bytes]:
    from tests.codegen.test_wasm_certificate import NAMES, instruction, of_code, small

    yield small()
    yield small()[:-12]
    yield of_code(*map(instruction, NAMES))
    yield of_code("nop") + b"\xa9"


def _archive() -> Iterator[bytes]:
    texts = {b"a.o": objects.CALLING, b"a_name_of_more_than_15_letters.o": objects.CALLED}
    members = [n + b"\n" + objects.compiled(text, "thumb") for n, text in texts.items()]
    yield b"a" + sealed.MARK.join(members)
    yield b"r" + sealed.static_archive(b"a" + sealed.MARK.join(members))
    yield b"r" + joined_members([Member("x", [b"abc"], ("a", "b")), Member("y" * 20, [b""], ())])


_SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "recipe": _recipe, "idx": _idx, "log": _log, "metadata": _metadata, "cifar": _cifar,
    "npz": _npz, "checkpoint": _checkpoint, "graph": _graph, "archive": _archive,
    "onnx": _onnx, "state": _state, "quantized": _quantized, "model": _model, "module": _module,
    **{f"object-{machine}": partial(_object, machine) for machine in MACHINES},
}  # fmt: skip
