"""`make drill-kill`: training runs that are killed at random moments end as if nothing happened.

    python -m tests.drill_kill [KILLS] [--command]

Runs of `Model.fit`, or of the command `addergraph train`. Each process goes on from the checkpoint
that the one before it left, and gets SIGKILL after a random time: while it imports, compiles,
trains, or writes. After every kill the checkpoint must load. A run that reaches its end must have
written the model file of an uninterrupted run, bit for bit, and the same logs but for the times.
When one run is done the next begins, until there were enough kills.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from addergraph.files import storage

ROOT = Path(__file__).parent.parent
CHECKPOINT_STEPS = 7

PROGRAM = f"""
import sys
folder, output, epochs = sys.argv[1], sys.argv[2], int(sys.argv[3])
from addergraph.data import Augment
from addergraph.training import SGD, Cosine
from tests.addergraph.models import DATA, small_model
model = small_model(input_shape=(8, 8, 1), seed=5)
model.fit(
    DATA.x_train[:700], DATA.y_train[:700], DATA.x_test, DATA.y_test,
    epochs=epochs, batch_size=32, learning_rate=Cosine(0.05, epochs, warmup=1.5),
    optimizer=SGD(average=0.9, clip_norm=5.0), augment=Augment(padding=1), keep_best=True,
    checkpoint=folder, checkpoint_steps={CHECKPOINT_STEPS}, resume=True, threads=1, verbose=0,
)
model.save(output)
"""


class Run:
    """One training, in one process or many, with a folder for its checkpoints.

    by_command  whether by `addergraph train` instead of `Model.fit`
    """

    def __init__(self, folder: Path, epochs: int, by_command: bool = False) -> None:
        folder.mkdir()
        self.folder, self.model = folder / "run", folder / "model.safetensors"
        self.command = [sys.executable, "-c", PROGRAM]
        self.command += [str(self.folder), str(self.model), str(epochs)]
        if by_command:
            self.command = [
                sys.executable, "-m", "addergraph", "train", "--epochs", str(epochs),
                "--threads", "1", "--keep-best", "--validation-split", "0.2",
                "--checkpoint", str(self.folder),
                "--checkpoint-steps", str(CHECKPOINT_STEPS), "--resume", "-o", str(self.model),
            ]  # fmt: skip

    def live(self, seconds: float | None) -> bool:
        """Starts or resumes it, kills it after a time; whether it came to its end.

        Raises AssertionError when the process fails, or leaves a checkpoint that does not load.
        """
        with subprocess.Popen(
            self.command, cwd=ROOT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            try:
                _, said = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                _, said = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), said
        if self.position() is None:
            assert process.returncode != 0
        return process.returncode == 0

    def launch(self, size: int, seconds: float | None, draw: random.Random) -> bool:
        """As `live`, by so many processes, of which one that is drawn is killed. Here: by one."""
        assert size == 1, size
        return self.live(seconds)

    def position(self) -> tuple[int, int] | None:
        """Epochs and steps of the checkpoint, which must be whole; None where there is none."""
        path = self.folder / "checkpoint.safetensors"
        if not path.exists():
            return None
        _, metadata = storage.load(path)
        at = json.loads(metadata["position"])
        return at["epoch"], at["step"]

    def result(self) -> tuple[bytes, list[dict[str, float]]]:
        """The model file, and the log without its times."""
        rows = [json.loads(line) for line in (self.folder / "log.jsonl").read_text().splitlines()]
        for row in rows:
            del row["seconds"], row["images_per_second"]
        return self.model.read_bytes(), rows


class Report(NamedTuple):
    """Of one drill: processes killed, by how many shared the run; those that left a checkpoint, and
    runs that were finished."""

    kills: Counter[int]
    resumable: int
    runs: int


def drill(
    kills: int, folder: Path, made: Callable[[Path], Run], *, seed: int = 0,
    sizes: Sequence[int] = (1,), within: tuple[float, float] = (0.1, 0.7),
) -> Report:  # fmt: skip
    """Kills `kills` processes, and compares every run with one that nobody disturbed.

    made    a run in a folder
    sizes   how many processes may share one
    within  parts of the usual time of a run, between which a kill comes
    """
    draw, killed, resumable, runs = random.Random(seed), Counter[int](), 0, 0
    whole = made(folder / "whole")
    assert whole.live(None)
    usual = {}
    for size in sizes:  # the code is compiled now, so that its time is typical
        again, start = made(folder / f"again{size}"), time.perf_counter()
        assert again.launch(size, None, draw)
        usual[size] = time.perf_counter() - start
        assert again.result() == whole.result(), f"{size} processes give other bits"
    while killed.total() < kills:
        runs += 1
        run, before, done = made(folder / f"run{runs}"), (0, 0), False
        while not done and killed.total() < kills:
            size = draw.choice(sizes)
            done = run.launch(size, draw.uniform(*within) * usual[size], draw)
            killed[size] += not done
            now = run.position() or (0, 0)
            resumable += not done and now > (0, 0)
            assert now >= before, "a kill took progress away"
            before = now
        assert done or run.live(None)
        assert run.result() == whole.result(), f"run {runs} differs from the undisturbed one"
    return Report(killed, resumable, runs)


def report(kills: int, *, seed: int = 0, by_command: bool = False) -> str:
    """What a drill of runs of a usual length says."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        epochs = 12 if by_command else 120
        made = partial(Run, epochs=epochs, by_command=by_command)
        done = drill(kills, Path(folder), made, seed=seed)
    return (
        f"{done.kills.total()} kills in {time.perf_counter() - start:.0f} s, {done.resumable} of "
        f"them after a checkpoint: every one loaded, and all {done.runs} runs ended bit-identical "
        "to the undisturbed one"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.HelpFormatter)
    parser.add_argument("kills", type=int, nargs="?", default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--command", action="store_true", help="of addergraph train")
    options = parser.parse_args()
    print(report(options.kills, seed=options.seed, by_command=options.command))


if __name__ == "__main__":
    main()
