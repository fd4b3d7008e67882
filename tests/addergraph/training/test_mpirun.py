"""Real processes: `mpirun -n 2 addergraph train`, and what ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from addergraph.files import storage
from tests.launching import ROOT, mpirun, workers

pytestmark = pytest.mark.slow
TRAIN = [sys.executable, "-m", "addergraph", "train", "--data", "digits", "--threads", "1"]
WRONG = """
import sys
from mpi4py import MPI
from addergraph.errors import AdderGraphError, DataError
from addergraph.training.replicas import Replicas
from tests.addergraph.models import X, Y, small_model
world, what = MPI.COMM_WORLD, sys.argv[1]
last = world.Get_rank() == 1
options = {"batch_size": 8 if last and what == "settings" else 16}
images = X[:-1] if last and what == "shapes" else X
labels = Y[: len(images)] if what != "data" or not last else Y[::-1].copy()
try:
    with Replicas(world):
        if last and what == "early":
            raise DataError("this machine has no such file")
        model = small_model(input_shape=(8, 8, 1))
        model.fit(images, labels, engine="reference", verbose=0, communicator=world, **options)
except AdderGraphError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def launched(size: int, *command: str, fails: bool = False) -> str:
    """What the processes say on both streams."""
    done = subprocess.run(
        [*mpirun(size), *command], cwd=ROOT, capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_command_gives_the_same_bits_and_one_log(tmp_path: Path) -> None:
    made = {}
    for size in (1, 2):
        folder = tmp_path / str(size)
        folder.mkdir()
        files = ["-o", str(folder / "m.safetensors"), "--checkpoint", str(folder / "run")]
        said = launched(size, *TRAIN, "--epochs", "2", "--deterministic", *files)
        assert said.count("  val_accuracy") == 2 and said.count("wrote ") == 1
        assert ("2 processes share each batch" in said) == (size == 2)
        log = (folder / "run" / "log.csv").read_text().splitlines()
        rows = [line.split(",")[:6] for line in log]
        made[size] = (folder / "m.safetensors").read_bytes(), rows
    assert made[1] == made[2] and len(made[2][1]) == 3


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("settings", "differ in the setting batch_size: process 1 has 16, process 2 of 2 has 8"),
        ("shapes", "differ in the shapes of the samples"),
        ("data", "differ in the data"),
    ],
)
def test_processes_that_work_on_something_else(what: str, message: str) -> None:
    said = launched(2, sys.executable, "-c", WRONG, what, fails=True)
    assert said.count(f"ProcessError: the processes of this run {message}") == 2, said
    assert "Traceback" not in said


def test_a_process_that_never_comes_to_fit() -> None:
    said = launched(2, sys.executable, "-c", WRONG, "early", fails=True)
    assert said.count("DataError: this machine has no such file") == 1, said
    assert "ProcessError: process 2 of 2 has ended this run: this machine has" in said, said


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_all(victim: int, tmp_path: Path) -> None:
    output, folder = tmp_path / "m.safetensors", tmp_path / "run"
    command = [*TRAIN, "--epochs", "400", "--checkpoint", str(folder), "--checkpoint-steps", "3"]
    with subprocess.Popen(
        [*mpirun(2), *command, "--resume", "-o", str(output)], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        limit = time.monotonic() + 200
        while not (folder / "checkpoint.safetensors").exists() and time.monotonic() < limit:
            time.sleep(0.1)
        os.kill(workers(process.pid)[victim], signal.SIGKILL)
        said, _ = process.communicate(timeout=100)
    assert process.returncode != 0 and f"rank {victim}" in said and "Killed" in said, said
    assert "Traceback" not in said and not output.exists()
    tensors, metadata = storage.load(folder / "checkpoint.safetensors")
    assert tensors and metadata["position"]
