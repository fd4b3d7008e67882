"""Networks as programs for small machines, and the emulators that run them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import addergraph as ag
from addergraph.codegen.export.library import Exported
from addergraph.codegen.targets.lookup import target_named
from addergraph.ir import Array
from addergraph.quantization import Quantized

SOURCES = Path(__file__).parents[2] / "examples" / "boards"
CLASSES = 10
# Files of the host are read by semihosting; time is counted in instructions of 1 ns.
CORTEX_M = (
    "qemu-system-arm -M {} -icount shift=0 -nographic -monitor none -serial none "
    "-semihosting-config enable=on,target=native -kernel"
)
NO_MULTIPLIER = "m=false,a=false,f=false,d=false,c=false"


@dataclass(frozen=True)
class Board:
    """A target, what its program is called, the emulator with its options, and how it is built."""

    target: str
    program: str
    emulator: str
    compiler: str = "clang"
    linker: str = "ld.lld"
    float_abi: str = "hard"  # of a Cortex-M4

    @property
    def tools(self) -> tuple[str, ...]:
        return "make", self.compiler, self.linker, self.emulator.split()[0]

    @property
    def has_files(self) -> bool:
        """Whether it reads and writes files of its folder, not the standard streams."""
        return self.emulator.startswith("qemu-system")


ESP32_C3 = Board("riscv32imc", "riscv32imc", "qemu-riscv32 -cpu rv32,a=false,f=false,d=false")
BOARDS = (
    Board("riscv32i", "riscv32", f"qemu-riscv32 -cpu rv32,{NO_MULTIPLIER}"),
    Board("riscv64i", "riscv64", f"qemu-riscv64 -cpu rv64,{NO_MULTIPLIER}"),
    ESP32_C3,
    Board("aarch64-linux-gnu", "aarch64", "qemu-aarch64"),
    Board("armv7-linux-gnueabihf", "armv7", "qemu-arm"),
    Board("thumbv7em", "mps2", CORTEX_M.format("mps2-an386")),
    Board("thumbv6m", "microbit", CORTEX_M.format("microbit")),
)
CORTEX_M4F = Board("thumbv7em-f32", "mps2", CORTEX_M.format("mps2-an386"), float_abi="softfp")
CORTEX_M55 = Board("thumbv8m-mve", "mps3", CORTEX_M.format("mps3-an547"))
GNU = "arm-none-eabi-"
_TOOLS = ((f"{GNU}gcc", f"{GNU}ld"), (f"{GNU}gcc", "ld.lld"), ("clang", "ld.lld"))
# A Cortex-M4: programs by both compilers and linkers, of every way to pass floats.
FLOAT_BOARDS = tuple(
    Board("thumbv6m", "mps2", CORTEX_M.format("mps2-an386"), compiler, linker, float_abi)
    for float_abi in ("hard", "softfp", "soft")
    for compiler, linker in _TOOLS
)


_A64, _RV64 = "--target=aarch64-unknown-linux-gnu", "--target=riscv64-unknown-linux-gnu"
LINUX = {  # target -> options of clang for programs without a library, the emulator
    "aarch64-linux-gnu": (_A64, "qemu-aarch64"),
    "aarch64-linux-gnu-dotprod": (_A64, "qemu-aarch64"),
    "armv7-linux-gnueabihf": (
        "--target=arm-linux-gnueabihf -mthumb -march=armv7-a -mfpu=vfpv4", "qemu-arm"
    ),
    "riscv64-linux-gnu": (f"{_RV64} -march=rv64gc -mabi=lp64d", "qemu-riscv64"),
    "riscv64-linux-gnu-v": (
        f"{_RV64} -march=rv64gc -mabi=lp64d", "qemu-riscv64 -cpu rv64,v=true,vlen=128"
    ),
}  # fmt: skip


_RV32 = "--target=riscv32-unknown-elf -mabi=ilp32 -march="
USER = {  # the same, and targets without a system whose programs qemu-user runs
    **LINUX,
    "riscv32i": (f"{_RV32}rv32i", f"qemu-riscv32 -cpu rv32,{NO_MULTIPLIER}"),
    "riscv32imc": (f"{_RV32}rv32imc", ESP32_C3.emulator),
    "riscv64i": (
        "--target=riscv64-unknown-elf -mabi=lp64 -march=rv64i",
        f"qemu-riscv64 -cpu rv64,{NO_MULTIPLIER}",
    ),
}


def exported(network: Quantized, target: str, folder: Path) -> Exported:
    """Strict, where there is strict code."""
    strict = target_named(target).decoded
    return ag.export(network, folder, target=target, name="digits", multiplication_free=strict)


def static_program(target: str, folder: Path, library: Path, made: Path, *options: str) -> None:
    """main.c of the folder with a library, as a program of Linux that needs no other.
    CalledProcessError, with what clang says, where that fails."""
    flags = USER[target][0].split()
    command: list[str | Path] = [
        "clang", *flags, "-std=c11", "-O1", "-ffreestanding", "-nostdlib", "-static", "-fno-pic",
        "-fuse-ld=lld", *options, f"-I{folder}", f"-I{SOURCES}", "-o", made, folder / "main.c",
        SOURCES / "linux.c", library,
    ]  # fmt: skip
    subprocess.run(command, capture_output=True, text=True, check=True)


def linked(board: Board, folder: Path) -> Path:
    """The program around the library in `folder`."""
    made = folder / f"{board.program}.elf"
    tools = [f"CC={board.compiler}", f"LD={board.linker}", f"FLOAT_ABI={board.float_abi}"]
    options = [f"LIBRARY={folder}", *tools, str(made)]
    done = subprocess.run(["make", "-s", "-C", SOURCES, *options], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return made


def emulate(
    board: Board, program: Path, data: bytes = b"", timeout: float = 60.0
) -> subprocess.CompletedProcess[bytes]:
    command = [*board.emulator.split(), program.name]
    if not board.has_files:
        command[-1] = f"./{program.name}"
    return subprocess.run(
        command, cwd=program.parent, input=data, capture_output=True, timeout=timeout
    )


def run(board: Board, program: Path, images: Array) -> tuple[Array, Array]:
    """Logits and ticks of each image. AssertionError where the program fails."""
    images.tofile(program.parent / "images.bin")
    done = emulate(board, program, images.tobytes())
    assert done.returncode == 0, (done.returncode, done.stderr)
    written = program.parent / "logits.bin"
    raw = written.read_bytes() if board.has_files else done.stdout
    numbers = np.frombuffer(raw, np.int32).reshape(-1, CLASSES + 1)
    return numbers[:, :CLASSES], numbers[:, CLASSES]


def undefined(program: Path) -> Sequence[str]:
    """What `nm -u` lists."""
    done = subprocess.run(["nm", "-u", program], capture_output=True, text=True, check=True)
    return done.stdout.split()
