"""What a network in integers takes of small machines: the table of docs/boards.md.

    python -m benchmarks.boards q.safetensors        # as `addergraph quantize` writes it

For each machine compiles the network, links it with examples/boards, runs all test images of the
digits, compares the logits with NumPy's bit for bit, and prints sizes in bytes. Boards of a
Cortex-M also count instructions. Needs make, clang, lld, qemu-user and qemu-system-arm.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

import addergraph as ag
from addergraph.codegen.inspect import elf
from addergraph.data import load
from addergraph.quantization import load_quantized
from addergraph.tables import Table
from tests.codegen.boards import BOARDS, CORTEX_M55, exported, linked, run

TICKS = {"microbit": 62.5, "mps2": 40.0, "mps3": 31.25}  # instructions, of 1 ns in the emulator
COLUMNS = "machine", "flash", "code", "weights", "RAM", "arena", "stack", "M instructions"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file")
    network = load_quantized(parser.parse_args().file)
    images = load("digits").x_test
    expected = ag.interpret(network.graph, images, weights=network.weights)
    rows = []
    for board in (*BOARDS, CORTEX_M55):
        with tempfile.TemporaryDirectory() as folder:
            made = exported(network, board.target, Path(folder))
            program = linked(board, Path(folder))
            logits, ticks = run(board, program, images)
            if not np.array_equal(logits, expected):
                raise SystemExit(f"{board.program}: other logits than NumPy's")
            facts = json.loads(made.metadata.read_text())
            loaded = [s for s in _sections(program) if s.allocated]
            code = sum(s.size for s in _sections(made.code) if s.executable)
        writable = [bool(s.flags & 1) for s in loaded]
        ram = sum(s.size for s, w in zip(loaded, writable, strict=True) if w)
        flash = sum(s.size for s, w in zip(loaded, writable, strict=True) if not w)
        tick = TICKS.get(board.program, 0.0)
        counted = f"{ticks.mean() * tick / 1e6:.2f}" if tick else ""
        known = [flash, code, facts["weights_bytes"], ram, facts["arena_bytes"]]
        rows.append([board.program, *map(str, known), str(facts["stack_bytes"]), counted])
    print("\n".join(Table(list(COLUMNS), rows, ("machine",)).lines()))


def _sections(path: Path) -> tuple[elf.Section, ...]:
    return elf.read_elf(path.read_bytes(), path.name).sections


if __name__ == "__main__":
    main()
