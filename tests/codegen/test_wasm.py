"""Libraries for WebAssembly: their bits in wasmtime and Node, the script, the folder."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, compiler
from addergraph.codegen.export.aot import export
from addergraph.codegen.export.library import Exported
from addergraph.codegen.inspect.certificate import certify
from addergraph.codegen.targets.lookup import host, target_named
from addergraph.codegen.targets.x86 import BASELINE
from addergraph.data import digits
from addergraph.errors import AdderGraphError, StorageError, ToolchainError, UnsupportedError
from addergraph.ir import Array, Builder, Graph
from addergraph.ir.interpreter import run_reference
from addergraph.ir.network import graph_and_weights
from addergraph.ir.state import initial_weights
from addergraph.ops.contraction.adder2d import Adder2d
from addergraph.ops.contraction.adder_dense import AdderDense
from addergraph.quantization import Quantized
from tests.addergraph.op_samples import SAMPLES
from tests.browser import dom_of
from tests.codegen.harness import same_bits
from tests.codegen.modules import Module
from tests.strategies import Case, random_case
from tests.strategies_integers import integer_case

pytestmark = pytest.mark.needs("wasm-ld")

SEVERAL = """
graph several(%a: u8[1,2,3], %b: i32[4]) {
  %y = transpose(%a) permutation=(0,2,1) : u8[1,3,2]
  %z = add(%b, %b) : i32[4]
  return %y, %z
}"""


@pytest.fixture(scope="module")
def images() -> Array:
    return digits.load().x_test[:40]


@pytest.fixture(scope="module")
def network(digits_of_adders: Model) -> Quantized:
    return ag.quantize(digits_of_adders, digits.load().x_train[:64])


@pytest.fixture(scope="module")
def of_bytes(network: Quantized, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return ag.export(
        network, tmp_path_factory.mktemp("bytes"), name="digits", target="wasm32",
        multiplication_free=True,
    )  # fmt: skip


def exported(graph: Graph, folder: Path, weights: Mapping[str, Array] | None = None) -> Exported:
    lowered = compiler.lower(graph, target_named("wasm32"))
    return export(lowered, initial_weights(graph) if weights is None else weights, folder)


# -- bits ----------------------------------------------------------------------------------------


def test_bytes_in_wasmtime(network: Quantized, of_bytes: Exported, images: Array) -> None:
    module, x = Module(of_bytes), network.inputs(images)
    assert module.call("selftest") == 0
    (found,) = module.run(network.graph, [x])
    assert np.array_equal(found, ag.interpret(network.graph, x, weights=network.weights))
    assert certify(Path(str(of_bytes.module))).multiplication_free


@pytest.mark.slow
@pytest.mark.skipif(host().triple != BASELINE.triple, reason="the machine is not x86-64")
def test_floats_have_the_bits_of_other_targets(
    digits_of_adders: Model, tmp_path: Path, images: Array
) -> None:
    """Dense and sparse adder kernels, batch norm, softmax; neither target has multiply-add."""
    model = digits_of_adders
    graph, _ = graph_and_weights(model, None)
    made = ag.export(model, tmp_path, target="wasm32")
    expected = ag.compile(model, target=BASELINE.name).run([images])[0]
    module = Module(made)
    assert module.call("selftest") == 0
    assert same_bits(module.run(graph, [images])[0], expected)


def check(case: Case, folder: Path) -> None:
    module = Module(exported(case.graph, folder, case.weights))
    assert module.call("selftest") == 0
    found = module.run(case.graph, case.inputs)
    expected, _ = run_reference(case.graph, case.inputs, case.weights)
    for one, other in zip(found, expected, strict=True):
        assert same_bits(one, np.asarray(other)), repr(case)


@pytest.mark.filterwarnings("ignore::addergraph.errors.RangeWarning")
@pytest.mark.parametrize("made", [random_case, integer_case])
@pytest.mark.parametrize(
    "seed", [3, *(pytest.param(s, marks=pytest.mark.slow) for s in range(4, 24))]
)
def test_random_graphs(made: Any, seed: int, tmp_path: Path) -> None:
    case = made(seed)
    if case.graph.updates:
        pytest.skip("updates parameters")
    check(case, tmp_path)


@pytest.mark.thinned(24)
@pytest.mark.filterwarnings("ignore::addergraph.errors.RangeWarning")
@pytest.mark.parametrize("name", SAMPLES)
def test_every_op(name: str, tmp_path: Path) -> None:
    """Each kernel family; floats within what the self-test allows."""
    sample, builder = SAMPLES[name][0].bound(), Builder("one")
    op = sample.op
    if isinstance(op, Adder2d | AdderDense):  # what is proven is for the ranges pass to say
        op = dataclasses.replace(op, input_nonnegative=False)
    values = [builder.input(f"x{k}", t) for k, t in enumerate(sample.types)]
    graph = builder.finish(builder.add(op, values))
    assert Module(exported(graph, tmp_path)).call("selftest") == 0


def test_damaged_weights_are_found(of_bytes: Exported) -> None:
    module = Module(of_bytes)
    data = Path(str(of_bytes.module)).read_bytes()
    weights = of_bytes.data.read_bytes()
    piece = weights[weights.index(b"\0\0") + 4096 :][:64]  # of the object's data
    assert data.count(piece) == 1
    memory = module.exports["memory"]
    whole = bytes(memory.read(module.store, 0, memory.data_len(module.store)))
    memory.write(module.store, bytes([piece[0] ^ 1]), whole.index(piece))
    assert module.call("selftest") == 4


def test_the_largest_distances(tmp_path: Path) -> None:
    """Sums of 16 bits, of as many steps as they hold and more."""
    graph = ag.parse("""
graph far(%x: u8[N,1030]) params(%f: u8[1030,5]) {
  %y = adder_dense(%x, %f) : i32[N,5]
  return %y
}""")
    weights = {"f": np.zeros((1030, 5), np.uint8)}
    x = np.full((1, 1030), 255, np.uint8)
    (found,) = Module(exported(graph, tmp_path, weights)).run(graph, [x])
    assert (found == -255 * 1030).all()


# -- the script ----------------------------------------------------------------------------------


def node(folder: Path, name: str, body: str) -> Any:
    """What a script prints as JSON that has `load` and all else of a library's module, as `lib`."""
    script = f"""
    import * as lib from "./{name}.js";
    import {{ readFileSync }} from "node:fs";
    const said = async (f) => {{
      try {{ await f(); }} catch (e) {{ return `${{e.name}}: ${{e.message}}`; }}
    }};
    {body}
    """
    (folder / "check.mjs").write_text(script)
    done = subprocess.run(
        ["node", "check.mjs"], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.needs("node")
def test_bytes_in_node(
    network: Quantized, of_bytes: Exported, images: Array, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(of_bytes.code.parent, tmp_path / "net"))
    x = network.inputs(images)
    (folder / "images.bin").write_bytes(x.tobytes())
    (folder / "broken.wasm").write_bytes(b"\0asm\1\0\0\0")
    said = node(folder, "digits", """
    const net = await lib.load();
    net.selftest();
    const x = new Uint8Array(readFileSync("images.bin")), scores = [];
    for (let i = 0; i < x.length; i += 64) scores.push([...net.run(x.slice(i, i + 64))]);
    const again = await lib.load(readFileSync("digits.wasm"));
    const clamped = [...again.run(new Uint8ClampedArray(x.slice(0, 64)))];
    const errors = [
      await said(() => net.run(x)),
      await said(() => net.run(new Float32Array(64))),
      await said(() => net.run([1, 2])),
      await said(() => net.run(null)),
      await said(() => net.run()),
      await said(() => lib.load(7)),
      await said(() => lib.load("./nowhere.wasm")),
      await said(() => lib.load("./broken.wasm")),
      await said(() => lib.load(new Response("", { status: 404 }))),
      await said(() => lib.load(new Uint8Array(3))),
    ];
    WebAssembly.validate = () => false;
    errors.push(await said(() => lib.load()));
    console.log(JSON.stringify({ scores, clamped, errors, inputs: lib.inputs, outputs: lib.outputs,
                                 target: net.metadata.target.name }));
    """)  # fmt: skip
    expected = np.asarray(ag.interpret(network.graph, x, weights=network.weights))
    assert said["scores"] == expected.tolist() and said["clamped"] == expected[0].tolist()
    assert said["target"] == "wasm32" and said["inputs"][0]["shape"] == [1, 8, 8, 1]
    assert said["outputs"][0]["elements"] == 10 and said["outputs"][0]["scale"] > 0
    parts = [
        "RangeError: input x: got 2560 elements, expected Uint8Array of 64 (shape 1 x 8 x 8 x 1)",
        "TypeError: input x: got Float32Array, expected Uint8Array of 64",
        "TypeError: input x: got Array", "TypeError: input x: got null, expected",
        "TypeError: input x: got undefined",
        "TypeError: load takes a URL, bytes or a Response, not number", "ENOENT",
        "Error: these bytes are not those of digits.wasm", "answered with status 404",
        "CompileError", "Error: this engine has no WebAssembly with SIMD",
    ]  # fmt: skip
    for part, error in zip(parts, said["errors"], strict=True):
        assert part in error


@pytest.mark.needs("node")
def test_several_inputs_and_outputs_have_names(tmp_path: Path) -> None:
    made = exported(ag.parse(SEVERAL), tmp_path)
    other = exported(ag.parse(SEVERAL.replace("%b, %b", "%b, %z0").replace(
        "  %z =", "  %z0 = neg(%b) : i32[4]\n  %z =")), tmp_path / "other")  # fmt: skip
    ag.export(ag.parse(SEVERAL), tmp_path / "named", weights={}, target="wasm32", name="mine")
    said = node(tmp_path, "several", """
    const net = await lib.load();
    const a = new Uint8Array([1, 2, 3, 4, 5, 6]), b = new Int32Array([1, -2, 3, 4]);
    const made = net.run({ a, b });
    const errors = [
      await said(() => net.run(new Uint8Array(6))),
      await said(() => net.run(3)),
      await said(() => lib.load("./other/several.wasm")),
      await said(() => lib.load("./named/mine.wasm")),
    ];
    console.log(JSON.stringify({ y: [...made.y], z: [...made.z], errors }));
    """)  # fmt: skip
    assert said["y"] == [1, 4, 2, 5, 3, 6] and said["z"] == [2, -4, 6, 8]
    assert said["errors"][0].startswith("TypeError: input a: got undefined, expected Uint8Array")
    assert "expected an object with a, b" in said["errors"][1]
    assert "several.wasm is of another export than several.js (graph_sha256)" in said["errors"][2]
    assert "compiled under the name mine: mine.js loads it, not several" in said["errors"][3]
    types = Path(str(made.types)).read_text()
    assert 'run(input: { "a": Uint8Array; "b": Int32Array }): { "y": Uint8Array; "z": ' in types
    assert other.script is not None


@pytest.mark.slow
@pytest.mark.needs("chromium")
def test_bytes_in_chromium(
    network: Quantized, of_bytes: Exported, images: Array, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(of_bytes.code.parent, tmp_path / "net"))
    x = network.inputs(images[:3])
    (folder / "index.html").write_text(f"""<!doctype html><p id=said></p><script type=module>
      import {{ load }} from "./digits.js";
      const net = await load(), x = new Uint8Array({x.reshape(-1).tolist()});
      net.selftest();
      said.textContent = JSON.stringify([0, 1, 2].map(
        (i) => [...net.run(x.slice(64 * i, 64 * i + 64))]));
    </script>""")
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/index.html"
        dom = dom_of(url, tmp_path / "profile", 10_000)
        server.shutdown()
    found = re.search(r'<p id="said">(.*?)</p>', dom)
    assert found is not None, dom
    expected = np.asarray(ag.interpret(network.graph, x, weights=network.weights))
    assert json.loads(found[1]) == expected.tolist()


# -- the folder ----------------------------------------------------------------------------------


def test_the_same_bytes_again_and_no_file_of_another_target(tmp_path: Path) -> None:
    graph = ag.parse(SEVERAL)
    made = exported(graph, tmp_path)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {
        "several.o", "several_data.o", "libseveral.a", "several.h", "metadata.json",
        "several.wasm", "several.js", "several.d.ts",
    }  # fmt: skip
    assert made.shared is made.example is None
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    exported(graph, tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    (tmp_path / "mine.js").write_text("")
    native = export(compiler.lower(graph, target_named("riscv32i")), {}, tmp_path)
    left = {p.name for p in tmp_path.iterdir()}
    assert "several.wasm" not in left and "several.js" not in left and "mine.js" in left
    assert native.module is native.script is None and native.example is not None
    exported(graph, tmp_path)
    assert not (tmp_path / "example" / "main.c").exists()
    with open(tmp_path / "several.js", "a") as file:
        file.write("// mine\n")
    with pytest.raises(StorageError, match=r'several\.js" was changed'):
        exported(graph, tmp_path)


def test_without_a_linker_the_objects_have_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    graph = ag.parse(SEVERAL)
    made = exported(graph, tmp_path)
    assert made.module is None and made.script is not None and made.archive.is_file()
    reason = json.loads(made.metadata.read_text())["no_shared_library"]
    assert reason.startswith("there was no linker (wasm-ld")
    lowered = compiler.lower(graph, target_named("wasm32"))
    with pytest.raises(ToolchainError, match='no linker for "wasm32": looked for wasm-ld'):
        export(lowered, {}, tmp_path, shared=True)


def test_python_does_not_load_it(of_bytes: Exported) -> None:
    with pytest.raises(AdderGraphError, match="which this machine cannot run"):
        ag.load_native(of_bytes.code.parent)
    with pytest.raises(UnsupportedError, match="is an object of WebAssembly"):
        certify(of_bytes.code)
