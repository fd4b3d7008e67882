"""Small boards: the digits network, without a multiplier, on emulated machines, bit for bit."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, compiler, zoo
from addergraph.codegen.export.aot import export
from addergraph.codegen.export.library import Exported
from addergraph.codegen.inspect import elf
from addergraph.codegen.inspect.certificate import certify, certify_bytes
from addergraph.codegen.inspect.disassembly import Instruction, disassemble
from addergraph.codegen.targets.lookup import target_named
from addergraph.data import digits
from addergraph.errors import UnsupportedError
from addergraph.ir import Array, Graph
from addergraph.ir.state import initial_weights
from addergraph.quantization import Quantized
from tests.codegen.boards import (
    BOARDS,
    CORTEX_M4F,
    CORTEX_M55,
    ESP32_C3,
    FLOAT_BOARDS,
    GNU,
    SOURCES,
    Board,
    emulate,
    exported,
    linked,
    run,
    undefined,
)
from tests.codegen.harness import same_bits

pytestmark = pytest.mark.slow  # a quarter of a minute to compile for all boards

FLASH, RAM = 256 << 10, 16 << 10  # bytes of a micro:bit
TARGETS = ("x86-64", *(board.target for board in BOARDS))


def needing(board: Board) -> Any:
    return pytest.param(board, marks=pytest.mark.needs(*board.tools), id=board.program)


RUNS = [needing(board) for board in BOARDS]
RISCV32, RISCV64, MPS2, MICROBIT = BOARDS[0], BOARDS[1], *BOARDS[-2:]
# An instruction that multiplies, for each machine, of the length of one that it can replace.
PLANTS = {
    "x86-64": bytes.fromhex("0fafc1"),  # imull %ecx, %eax
    "aarch64-linux-gnu": (0x1B017C00).to_bytes(4, "little"),  # mul w0, w0, w1
    "armv7-linux-gnueabihf": bytes.fromhex("00fb01f0"),  # mul r0, r0, r1
    "thumbv6m": (0x4348).to_bytes(2, "little"),  # muls r0, r1, r0
    "thumbv7em": bytes.fromhex("00fb01f0"),  # mul r0, r0, r1
    "riscv32i": (0x02B50533).to_bytes(4, "little"),  # mul a0, a0, a1
    "riscv32imc": (0x02B50533).to_bytes(4, "little"),  # the same
    "riscv64i": (0x02B5053B).to_bytes(4, "little"),  # mulw a0, a0, a1
}


@pytest.fixture(scope="module")
def network(digits_of_adders: Model) -> Quantized:
    """In integers, its requantizations shifts."""
    return ag.quantize(digits_of_adders, digits.load().x_train[:128])


@pytest.fixture(scope="module")
def images(network: Quantized) -> Array:
    found = network.inputs(digits.load().x_test)
    assert len(found) == 360
    return found


@pytest.fixture(scope="module")
def logits(network: Quantized, images: Array) -> Array:
    """What NumPy says."""
    made = ag.interpret(network.graph, images, weights=network.weights)
    assert isinstance(made, type(images))
    assert (made.argmax(1) == digits.load().y_test).mean() > 0.95
    return made


class Libraries(dict[str, Exported]):
    """The exported network for each target, made when it is asked for."""

    def __init__(self, network: Quantized, folders: pytest.TempPathFactory) -> None:
        self.network, self.folders = network, folders

    def __missing__(self, target: str) -> Exported:
        self[target] = exported(self.network, target, self.folders.mktemp(target))
        return self[target]


@pytest.fixture(scope="module")
def libraries(network: Quantized, tmp_path_factory: pytest.TempPathFactory) -> Libraries:
    return Libraries(network, tmp_path_factory)


# -- programs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("board", RUNS)
def test_all_images_have_the_bits_of_numpy(
    board: Board, libraries: Libraries, images: Array, logits: Array
) -> None:
    program = linked(board, libraries[board.target].code.parent)
    found, _ = run(board, program, images)
    assert found.shape == logits.shape and (found == logits).all()
    made = certify(program)
    assert made.multiplication_free and not made.undefined, made.render()
    assert {"main", "board_read", "body"} <= {f.name for f in made.functions}
    assert [s.name for s in elf.read_elf(program.read_bytes(), "x").symbols if s.undefined] == []


# The programs are for any tensors, and any name of the library.
PIXELS = ag.parse("""
graph Pixels_3(%x: u8[N,4,4,3]) params(%table: u8[3,256], %f: u8[6,6,3,10]) {
  %y = lookup(%x, %table) : u8[N,4,4,3]
  %sums = adder2d(%y, %f) padding=(1,1,1,1) : i32[N,1,1,10]
  %scores = flatten(%sums) : i32[N,10]
  return %scores
}""")


Pixels = tuple[Array, dict[str, Array]]


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    """Images, and weights."""
    rng = np.random.default_rng(0)
    images, *numbers = (
        rng.integers(0, 256, s, np.uint8) for s in ((9, 4, 4, 3), (3, 256), (6, 6, 3, 10))
    )
    return images, dict(zip(("table", "f"), numbers, strict=True))


def require_pixels(
    board: Board, pixels: Pixels, folder: Path, graph: Graph = PIXELS, strict: bool = True
) -> Path:
    """The program, after it gave the bits of NumPy."""
    images, weights = pixels
    compiler.export(graph, folder, weights=weights, target=board.target, multiplication_free=strict)
    program = linked(board, folder)
    found, _ = run(board, program, images)
    assert np.array_equal(found, ag.interpret(graph, images, weights=weights))
    return program


@pytest.mark.needs(*ESP32_C3.tools)
def test_products_of_a_core_that_has_them(pixels: Pixels, tmp_path: Path) -> None:
    """A network that a core without a multiplier refuses, and its own strict form."""
    text = str(PIXELS).replace("adder2d", "conv2d").replace("%f: u8", "%f: i8")
    weights = {**pixels[1], "f": pixels[1]["f"].view(np.int8)}
    given, graph = (pixels[0], weights), ag.parse(text)
    program = require_pixels(ESP32_C3, given, tmp_path / "m", graph, strict=False)
    assert any("mul" in f.mnemonics for f in certify(program).functions)
    kinds = {i.mnemonic for i in decoded(program)}
    assert any(str(m).startswith("c.") for m in kinds), "no compressed instruction"
    with pytest.raises(UnsupportedError, match="multiplication-free"):
        require_pixels(ESP32_C3, given, tmp_path / "s", graph)
    assert certify(require_pixels(ESP32_C3, pixels, tmp_path / "a")).multiplication_free


def decoded(program: Path) -> list[Instruction]:
    read = elf.read_elf(program.read_bytes(), program.name)
    return [i for piece in disassemble(read, program.name) for i in piece.instructions]


@pytest.mark.parametrize("board", [needing(MPS2), needing(CORTEX_M55)])
def test_products_of_cores_that_sum_them(board: Board, pixels: Pixels, tmp_path: Path) -> None:
    text = str(PIXELS).replace("adder2d", "conv2d").replace("%f: u8", "%f: i8")
    weights = {**pixels[1], "f": pixels[1]["f"].view(np.int8)}
    program = require_pixels(board, (pixels[0], weights), tmp_path, ag.parse(text), strict=False)
    assert board is CORTEX_M55 or any("smlad" in f.mnemonics for f in certify(program).functions)


@pytest.mark.parametrize("board", RUNS)
def test_pixels_are_looked_up(board: Board, pixels: Pixels, tmp_path: Path) -> None:
    made = certify(require_pixels(board, pixels, tmp_path))
    assert made.multiplication_free, made.render()
    assert any(f.name.startswith("lookup") for f in made.functions)


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    "board",
    [
        pytest.param(
            b, marks=pytest.mark.needs(*b.tools), id=f"{b.float_abi}-{b.compiler}-{b.linker}"
        )
        for b in FLOAT_BOARDS
    ],
)
def test_programs_pass_floats_as_they_like(board: Board, pixels: Pixels, tmp_path: Path) -> None:
    program = elf.read_elf(require_pixels(board, pixels, tmp_path).read_bytes(), "x")
    assert program.flags & 0x600 == (0x400 if board.float_abi == "hard" else 0x200)


@pytest.mark.needs(f"{GNU}readelf")
def test_objects_say_that_no_floats_are_passed(pixels: Pixels, tmp_path: Path) -> None:
    made = compiler.export(PIXELS, tmp_path, weights=pixels[1], target="thumbv6m")
    for path in (made.code, made.data):
        text = subprocess.run(
            [f"{GNU}readelf", "-A", str(path)], capture_output=True, text=True, check=True
        )
        assert "Tag_ABI_VFP_args: compatible" in text.stdout and not text.stderr
        assert text.stdout.count("Tag_") > 10 and "Tag_CPU_arch: v6S-M" in text.stdout


@pytest.mark.needs(*MICROBIT.tools, "nm")
def test_a_microbit_has_room_and_time(libraries: Libraries, images: Array) -> None:
    exported = libraries[MICROBIT.target]
    program = linked(MICROBIT, exported.code.parent)
    assert undefined(program) == []
    sections = elf.read_elf(program.read_bytes(), program.name).sections
    flash = sum(s.size for s in sections if s.flags & 2 and not s.flags & 1)  # loaded, read-only
    ram = sum(s.size for s in sections if s.flags & 1)
    arena = json.loads(exported.metadata.read_text())["arena_bytes"]
    assert 60_000 < flash < FLASH // 3
    assert arena < ram < RAM // 4, "the rest is the stack's"
    _, ticks = run(MICROBIT, program, images[:3])
    assert (ticks > 30_000).all() and (ticks < 150_000).all(), "6 M instructions of 1/62.5 ticks"


@pytest.mark.parametrize(
    ("board", "least", "most"), [
        pytest.param(MPS2, 10_000, 20_000, marks=pytest.mark.needs(*MPS2.tools)),
        pytest.param(CORTEX_M55, 5_000, 11_000, marks=pytest.mark.needs(*CORTEX_M55.tools)),
    ],
)  # fmt: skip
def test_vectors_of_bytes_need_few_instructions(
    board: Board, least: int, most: int, libraries: Libraries, images: Array, logits: Array
) -> None:
    """A tick is 40 of them on MPS2, 31.25 on MPS3: a seventh and a twentieth of a Cortex-M0's."""
    made = libraries[board.target]
    found, ticks = run(board, linked(board, made.code.parent), images)
    assert (found == logits).all()
    assert (ticks > least).all() and (ticks < most).all()
    assert isinstance(json.loads(made.metadata.read_text())["stack_bytes"], int)


def test_vectors_of_a_cortex_m55_are_not_certified(libraries: Libraries) -> None:
    """capstone does not know them: what is refused is not decoded, not multiplied."""
    found = certify(libraries[CORTEX_M55.target].code)
    assert not found.multiplication_free


MEANS = """
graph means(%x: f32[N,5,6,3]) params(%f: f32[3,3,3,4] init=normal(0,1)) {
  %y = adder2d(%x, %f) padding=(1,1,1,1) : f32[N,5,6,4]
  %p = avg_pool2d(%y) window=(2,2) stride=(1,1) : f32[N,4,5,4]
  %m = global_avg_pool(%p) : f32[N,4]
  %s = sigmoid(%m) : f32[N,4]
  %t = softmax(%s) : f32[N,4]
  %c = concat(%m, %s, %t) axis=1 : f32[N,12]
  %z = slice(%c) start=(0,0) stop=(N,10) : f32[N,10]
  return %z
}"""


@pytest.mark.parametrize("board", [needing(CORTEX_M4F), needing(CORTEX_M55)])
@pytest.mark.parametrize("form", ["adders", "authors", "means"])
def test_floats(board: Board, form: str, digits_of_adders: Model, tmp_path: Path) -> None:
    """The program ends if its self-test fails: the outputs are within what rounding explains."""
    if form == "means":
        graph = ag.parse(MEANS)
        weights = initial_weights(graph)
        compiler.export(graph, tmp_path, weights=weights, target=board.target, name="net")
    else:
        model = digits_of_adders
        if form == "authors":
            model = zoo.build("all-adder", first="conv", last="conv")
        graph, weights = model.graph(training=False), model.weights
        ag.export(model, tmp_path, target=board.target, name="net")
    shape = graph.inputs[0].type.bind(9).sizes
    images = np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)
    found, ticks = run(board, linked(board, tmp_path), images)
    here: Any = ag.compile(graph, weights=weights)(images)  # sums have the same order
    assert np.allclose(found.view(np.float32), here, rtol=1e-5, atol=1e-7)
    assert ticks.all()


@pytest.mark.parametrize("board", [needing(CORTEX_M4F), needing(CORTEX_M55)])
@pytest.mark.parametrize(
    "nodes",
    [
        "%y = relu(%x) : f32[N,10]",
        "%y = relu6(%x) : f32[N,10]",
        "%y = leaky_relu(%x) slope=0.5 : f32[N,10]",
        "%y = clip(%x) lo=0.0 hi=2.0 : f32[N,10]",
        "%y = clip(%x) lo=-1.0 hi=1.0 : f32[N,10]",
        *(f"%y = {op}({ends}) : f32[N,10]" for op in ("maximum", "minimum")
          for ends in ("%x, %zero", "%zero, %x", "%x, %half", "%half, %x")),
        "%c = greater(%zero, %x) : bool[N,10] %y = cast(%c) dtype=f32 : f32[N,10]",
        "%c = greater(%x, %half) : bool[N,10] %y = cast(%c) dtype=f32 : f32[N,10]",
        "%c = greater(%half, %x) : bool[N,10] %y = select(%c, %zero, %half) : f32[N,10]",
        "%c = cast(%x) dtype=i8 : i8[N,10] %y = cast(%c) dtype=f32 : f32[N,10]",
        "%c = cast(%x) dtype=i32 : i32[N,10] %y = cast(%c) dtype=f32 : f32[N,10]",
        "%c = cast(%x) dtype=bool : bool[N,10] %y = cast(%c) dtype=f32 : f32[N,10]",
    ],
)  # fmt: skip
def test_nan_is_no_number(board: Board, nodes: str, tmp_path: Path) -> None:
    """Nor are comparisons with it true, whether LLVM knows the other number or not."""
    graph = ag.parse(f"""graph nan(%x: f32[N,10]) params(%half: f32[]) {{
      %zero = full() value=0.0 shape=() dtype=f32 : f32[]
      {nodes}
      return %y }}""")
    half = {"half": np.asarray(0.5, np.float32)}
    compiler.export(graph, tmp_path, weights=half, target=board.target, name="net")
    known = np.array([np.nan, -np.nan, 0, -0.0, 0.5, -0.5, 3, -3, np.inf, -np.inf], np.float32)
    x = np.stack([np.roll(known, shift) for shift in range(10)])
    found, _ = run(board, linked(board, tmp_path), x)
    with np.errstate(invalid="ignore"):
        right = ag.interpret(graph, x, weights=half)
    assert isinstance(right, np.ndarray)
    assert same_bits(found.view(np.float32), right)


@pytest.mark.parametrize(
    ("board", "machine"),
    [
        pytest.param(board, flags, marks=pytest.mark.needs(*board.tools), id=board.program)
        for board, flags in (
            (RISCV32, ("--target=riscv32-unknown-elf", "-march=rv32im", "-mabi=ilp32")),
            (RISCV64, ("--target=riscv64-unknown-elf", "-march=rv64im", "-mabi=lp64")),
        )
    ],
)
def test_that_core_cannot_multiply(board: Board, machine: tuple[str, ...], tmp_path: Path) -> None:
    """Otherwise bit-equal logits would say nothing."""
    source = "int main(void) { int a = 6, b = 7; __asm__ volatile(%s); return a; }\n"
    flags = (*machine, "-ffreestanding", "-O1")
    for statement, status in (('"add %0, %0, %1"', 13), ('"mul %0, %0, %1"', -signal.SIGILL)):
        (tmp_path / "main.c").write_text(source % f'{statement} : "+r"(a) : "r"(b)')
        objects = []
        for path in (tmp_path / "main.c", SOURCES / "linux.c"):
            objects.append(tmp_path / f"{path.stem}.o")
            subprocess.run(["clang", *flags, "-c", "-o", objects[-1], path], check=True)
        program = tmp_path / "try.elf"
        subprocess.run(["ld.lld", "-o", program, *objects], check=True)
        assert emulate(board, program).returncode == status
        assert certify(program).multiplication_free == (status > 0)


@pytest.mark.needs(*RISCV32.tools)
def test_damaged_weights_and_wrong_bits_end_the_program(
    libraries: Libraries, images: Array, tmp_path: Path, network: Quantized
) -> None:
    """The self-test has golden outputs, although this machine cannot run the code."""
    data = bytearray(linked(RISCV32, libraries["riscv32i"].code.parent).read_bytes())
    filters = next(v for n, v in network.weights.items() if n.startswith("adder4.f")).tobytes()
    middle = bytes(network.weights["act4.center"].tobytes())
    assert len(filters) > 30_000 and data.count(middle) == 1
    data[data.index(middle)] ^= 1
    program = tmp_path / "damaged.elf"
    program.write_bytes(data)
    program.chmod(0o755)
    assert emulate(RISCV32, program, images[:1].tobytes()).returncode == 2


# -- objects ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_the_certificate_of_each_object_passes(target: str, libraries: Libraries) -> None:
    made = libraries[target]
    for path in (made.archive, made.code):
        found = certify(path)
        assert found.multiplication_free, found.render()
        assert sum(sum(f.counts.values()) for f in found.functions) > 1000
    assert certify(made.archive).undefined == ()
    data = [f"digits_data_{name}" for name in ("golden", "metadata", "weights")]
    assert certify(made.code).undefined == tuple(data), "it calls nothing"
    facts = json.loads(made.metadata.read_text())
    assert facts["multiplication_free"] is True and facts["golden"] == {"exact": True, "seed": 0}


@pytest.mark.thinned(4)
@pytest.mark.parametrize("target", PLANTS)
def test_a_planted_multiply_in_each_is_found(target: str, libraries: Libraries) -> None:
    plant, path = PLANTS[target], libraries[target].code
    data = path.read_bytes()
    read = elf.read_elf(data, path.name)
    pieces = [p for p in disassemble(read, path.name) if p.name.startswith("adder2d")]
    assert len(pieces) >= 3
    for piece in pieces:
        places = [i for i in piece.instructions if i.size == len(plant)]
        at = places[len(places) // 2].offset
        start = data.index(read.sections[piece.section].data) + at
        planted = data[:start] + plant + data[start + len(plant) :]
        (failure,) = certify_bytes(planted, path.name).failures
        assert (failure.function, failure.offset) == (piece.name, at - piece.offset)
        assert "mul" in failure.instruction and failure.reason in ("multiply", "address mul/div")


def test_a_bare_target_has_no_shared_library(network: Quantized, libraries: Libraries) -> None:
    made = libraries["thumbv6m"]
    assert made.shared is None
    reason: Any = json.loads(made.metadata.read_text())["no_shared_library"]
    assert "no operating system" in reason
    header = made.header.read_text()
    assert "one thread alone computes a call" in header
    assert "splits one call over threads" in libraries["aarch64-linux-gnu"].header.read_text()
    lowered = compiler.lower(network.graph, target_named("thumbv6m"))
    with pytest.raises(
        UnsupportedError, match='"thumbv6m" gets no shared library: the target has no'
    ):
        export(lowered, network.weights, made.code.parent, shared=True)
