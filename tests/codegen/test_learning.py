"""Libraries that learn, on other machines: WebAssembly in Node, code for Windows called here, code
for macOS, Linux and a Cortex-M7 in emulators; and the programs of `examples/device`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph.codegen.export.interface import DAMAGED_WEIGHTS
from addergraph.codegen.export.library import Exported
from addergraph.codegen.export.training_interface import FUNCTIONS
from addergraph.codegen.inspect.size import size_of
from addergraph.codegen.targets.desktop import MACOS
from addergraph.codegen.targets.lookup import host, runnable
from addergraph.codegen.targets.target import Target
from addergraph.codegen.targets.x86 import BASELINE, EVERY, X86_LEVELS
from addergraph.ir import Array
from addergraph.model.device import DeviceTraining
from tests.codegen import macs
from tests.codegen.boards import CORTEX_M, static_program
from tests.codegen.learners import Learner, small_model
from tests.codegen.windows import Library

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples" / "device"
ON_X86 = pytest.mark.skipif(host().triple != BASELINE.triple, reason="the machine is not x86-64")
STEPS, BATCH = 12, 4
SETTINGS = DeviceTraining(batch=BATCH)


@pytest.fixture(scope="module")
def samples() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((STEPS, BATCH, 6, 6, 1), np.float32)
    return x, rng.integers(0, 4, (STEPS, BATCH), np.int32)


@pytest.fixture(scope="module")
def baseline(
    samples: tuple[Array, Array], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Array, bytes, Array]:
    """Losses, the saved state and scores of this machine's oldest level: four lanes, and no
    multiply-add, as WebAssembly."""
    folder = tmp_path_factory.mktemp("baseline")
    made = Learner(ag.export(small_model(), folder, train=SETTINGS, target=BASELINE.name))
    losses = np.array([made.train([x], [y], 0.1) for x, y in zip(*samples, strict=True)])
    return losses, made.save(), made.run([samples[0][0, 0]])[0]


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return ag.export(
        small_model(), tmp_path_factory.mktemp("wasm"), train=SETTINGS, target="wasm32"
    )


NODE = """
import fs from "node:fs";
import { load, batch, inputs, answers } from "./small.js";
const { xs, ys } = JSON.parse(fs.readFileSync("samples.json"));
const net = await load(), losses = [], errors = [];
net.selftest();
const first = net.save();
for (const [i, x] of xs.entries()) {
  losses.push(net.train(Float32Array.from(x), Int32Array.from(ys[i]), 0.1));
}
const saved = net.save(), one = Float32Array.from(xs[0].slice(0, 36)), scores = [...net.run(one)];
fs.writeFileSync("node.state", saved);
const wrong = (change) => change(saved.slice());
const x = Float32Array.from(xs[0]), y = Int32Array.from(ys[0]);
for (const call of [
  () => net.train(x, Int32Array.from([0, 1, 2, 4]), 0.1),
  () => net.train(x, y, -1),
  () => net.train(x, y, "fast"),
  () => net.train(x.slice(1), y, 0.1),
  () => net.train(x, [0, 1, 2, 3], 0.1),
  () => net.run(x),
  () => net.load(saved.slice(1)),
  () => net.load(saved.slice(0, -1)),
  () => net.load(wrong((b) => { b[20] ^= 1; return b; })),
  () => net.load(wrong((b) => { b[100] ^= 1; return b; })),
  () => net.load(wrong((b) => { b[8] = 9; return b; })),
  () => net.load("text"),
]) {
  try { call(); errors.push(""); } catch (error) { errors.push(`${error.name}: ${error.message}`); }
}
const kept = Buffer.compare(Buffer.from(net.save()), Buffer.from(saved)) === 0;
net.load(first);
const again = net.train(x, y, 0.1);
net.load(saved);
const same = [...net.run(one)].every((score, i) => score === scores[i]);
console.log(JSON.stringify({ batch, inputs, answers, losses, scores, errors, kept, again, same }));
"""


@ON_X86
@pytest.mark.needs("node", "wasm-ld")
def test_node_has_the_bits_of_the_baseline(
    module: Exported, samples: tuple[Array, Array], baseline: tuple[Array, bytes, Array]
) -> None:
    """And takes no state but its own; a state moves between WebAssembly and C."""
    folder, (xs, ys) = module.header.parent, samples
    assert module.script is not None and module.types is not None
    content = {"xs": xs.reshape(STEPS, -1).tolist(), "ys": ys.tolist()}
    (folder / "samples.json").write_text(json.dumps(content))
    (folder / "test.mjs").write_text(NODE)
    done = subprocess.run(
        ["node", "test.mjs"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    losses, saved, scores = baseline
    assert np.array_equal(np.array(found["losses"], np.float32), losses)
    assert np.array_equal(np.array(found["scores"], np.float32), scores[0])
    assert (folder / "node.state").read_bytes() == saved
    assert found["batch"] == BATCH and found["kept"] and found["same"]
    assert found["again"] == found["losses"][0]
    assert found["inputs"][0]["shape"] == [6, 6, 1] and found["answers"][0]["classes"] == 4
    expected = [
        "Error: small_train: a label is not", "Error: small_train: the learning rate",
        "Error: small_train: the learning rate", "RangeError: input x: got 143",
        "TypeError: input labels: got Array", "RangeError: input x: got 144 elements",
        "Error: small_load: the bytes do not begin", "Error: small_load: bytes are missing",
        "Error: small_load: the state is that of another network",
        "Error: small_load: the state differs from its checksum",
        "Error: small_load: the state was saved by another version", "TypeError: load takes",
    ]  # fmt: skip
    for error, start in zip(found["errors"], expected, strict=True):
        assert error.startswith(start), error


@ON_X86
@pytest.mark.needs("lld-link")
@pytest.mark.parametrize(
    "level", [t for t in (*X86_LEVELS, EVERY) if runnable(t)], ids=lambda t: t.name
)
def test_windows_has_the_bits_of_linux(
    level: Target, samples: tuple[Array, Array], tmp_path: Path
) -> None:
    """The same losses, state and answers, and states go from one to the other."""
    name, found = level.name, []
    here = ag.export(small_model(), tmp_path / "linux", train=SETTINGS, target=name)
    made = ag.export(small_model(), tmp_path / "dos", train=SETTINGS, target=f"{name}-windows")
    windows = Library(made, tmp_path, FUNCTIONS)
    assert windows.call("supported") == 1
    learners = Learner(here), Learner(made, windows.call)
    for one in learners:
        assert one.call("selftest", one.state, one.arena) == 0
        losses = [one.train([x], [y], 0.1) for x, y in zip(*samples, strict=True)]
        found.append((losses, one.save(), one.run([samples[0][0, 0]])[0].tobytes()))
    assert found[0] == found[1] and found[0][0][-1] < found[0][0][0]
    linux, other = learners
    linux.train([samples[0][0]], [samples[1][0]], 0.1)
    saved = linux.save()
    assert saved != found[0][1] and other.load(saved) == 0 and other.save() == saved
    windows.memory[windows.places["small_data_golden"]] ^= 1
    assert other.call("selftest", other.state, other.arena) == DAMAGED_WEIGHTS


MAIN = """
#include "board.h"
#include "small.h"
static uint8_t state[SMALL_STATE_BYTES] __attribute__((aligned(SMALL_ARENA_ALIGN)));
static uint8_t arena[SMALL_ARENA_BYTES] __attribute__((aligned(SMALL_ARENA_ALIGN)));
static uint8_t saved[SMALL_SAVED_BYTES];
static float x[SMALL_BATCH * SMALL_X_ELEMENTS];
static int32_t y[SMALL_BATCH];
int main(void)
{
    const float rate = 0.1f;
    float loss;
    if (small_selftest(state, arena) != SMALL_OK)
        return 2;
    while (board_read(x, sizeof x) && board_read(y, sizeof y)) {
        if (small_train(x, y, &rate, &loss, state, arena) != SMALL_OK)
            return 3;
        if (!board_write(&loss, sizeof loss))
            return 4;
    }
    if (small_save(state, saved) != SMALL_OK || small_load(state, saved, sizeof saved) != SMALL_OK)
        return 5;
    return board_write(saved, sizeof saved) ? 0 : 6;
}
"""


@ON_X86
@pytest.mark.parametrize(
    ("target", "emulator"),
    [
        pytest.param(t, e, marks=pytest.mark.needs(*tools, e), id=t)
        for t, e, tools in (
            ("aarch64-linux-gnu", "qemu-aarch64", ("clang", "ld.lld")),
            ("armv7-linux-gnueabihf", "qemu-arm", ("clang", "ld.lld")),
            (MACOS.name, "qemu-aarch64", macs.TOOLS),
        )
    ],
)
def test_arm(
    target: str, emulator: str, samples: tuple[Array, Array],
    baseline: tuple[Array, bytes, Array], tmp_path: Path,
) -> None:  # fmt: skip
    """Losses are near: sums are rounded in another order there, and a state fits everywhere."""
    made = ag.export(small_model(), tmp_path, train=SETTINGS, target=target)
    (tmp_path / "main.c").write_text(MAIN)
    program, system, library = tmp_path / "program", target, made.archive
    if target == MACOS.name:
        system, library = "aarch64-linux-gnu", macs.for_linux(made, tmp_path)
    static_program(system, tmp_path, library, program)
    data = b"".join(x.tobytes() + y.tobytes() for x, y in zip(*samples, strict=True))
    done = subprocess.run([emulator, program], input=data, capture_output=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
    losses = np.frombuffer(done.stdout[: 4 * STEPS], np.float32)
    expected, saved, _ = baseline
    assert np.allclose(losses, expected, rtol=0.02)
    found = done.stdout[4 * STEPS :]
    assert found[:48] == saved[:48] and len(found) == len(saved)


# -- examples --------------------------------------------------------------------------------------


def exported_examples(folder: Path, *options: str) -> None:
    command = [sys.executable, str(EXAMPLES / "export.py"), str(folder), *options]
    subprocess.run(command, check=True, capture_output=True)


def made(folder: Path, *targets: Any) -> None:
    command = ["make", "-s", "-C", EXAMPLES, f"BUILD={folder}", *targets]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr


def output(*command: Any) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("device")
    exported_examples(folder)
    made(folder)
    return folder


@pytest.mark.needs("cc", "make")
def test_the_digits_are_learned_from_scratch(built: Path) -> None:
    told = output(built / "learn_digits", built)
    assert float(re.findall(r"accuracy (\S+)", told)[-1]) >= 0.97
    assert len((built / "learned.state").read_bytes()) > 10_000


@pytest.mark.needs("cc", "make")
def test_a_class_is_added(built: Path) -> None:
    found = re.findall(r"known classes (\S+), new class (\S+)", output(built / "add_class", built))
    (known_before, new_before), (known, new) = ([float(v) for v in row] for row in found)
    assert new_before == 0.0 and known_before > 0.97
    assert new >= 0.85 and known >= 0.96
    whole, last = (json.loads((built / n / "metadata.json").read_text()) for n in ("learn", "more"))
    assert last["state_bytes"] < whole["state_bytes"] / 5
    assert last["arena_bytes"] < whole["arena_bytes"] / 2


@pytest.mark.needs("cc", "make", "clang", "ld.lld", "qemu-system-arm")
def test_a_cortex_m7_learns_the_digits(built: Path, tmp_path: Path) -> None:
    """Its state and arena fit 512 KB; what it learned answers on this machine."""
    exported_examples(tmp_path, "--target", "thumbv7em-f32", "--batch", "4")
    size = size_of(tmp_path / "learn")
    assert size.stack is not None and sum(size.ram_of_a_call.values()) <= 512 << 10
    assert sum(size.flash.values()) < 128 << 10
    made(tmp_path, tmp_path / "board.elf")
    records = np.fromfile(tmp_path / "train.bin", np.uint8).reshape(-1, 68)
    steps = 100
    records[: 4 * steps].tofile(tmp_path / "images.bin")
    command = [*CORTEX_M.format("mps2-an500").split(), "board.elf"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "logits.bin").read_bytes()
    losses = np.frombuffer(written[: 8 * steps], [("loss", "<f4"), ("ticks", "<u4")])["loss"]
    assert losses[-30:].mean() < 0.6 * losses[:30].mean()
    facts = json.loads((built / "learn" / "metadata.json").read_text())
    here = Learner(ag_exported(built / "learn", facts["name"]))
    assert here.load(written[8 * steps :]) == 0
    tests = np.fromfile(built / "test.bin", np.uint8).reshape(-1, 68)
    right = [int(here.run([row[:64]])[0].argmax()) == int(row[64]) for row in tests]
    assert np.mean(right) > 0.6


def ag_exported(folder: Path, name: str) -> Exported:
    """The files of an export that another process made."""
    files = (folder / f"{name}.o", folder / f"{name}_data.o", folder / f"lib{name}.a")
    return Exported(
        *files, folder / f"lib{name}.so", folder / f"{name}.h", folder / "metadata.json", None
    )
