"""How commands end: signals, full disks and memory, terminals that lack letters."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from addergraph.cli import main as cli
from addergraph.cli.bench.bench import Bench
from addergraph.cli.commands import show
from tests.addergraph.shell import Shell

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.usefixtures("quick_objects")


def test_ctrl_c_is_no_error_of_ours(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(options: show.Summary) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(show, "summary", interrupt)
    done = shell("summary", "deck")
    assert done.status == 130
    assert done.err.strip() == "interrupted"


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_signals_that_end_a_process_act_as_ctrl_c(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, name: str, status: int
) -> None:
    number, cleaned = getattr(signal, name), []

    def work(options: show.Summary) -> None:
        try:
            signal.raise_signal(number)
        finally:
            if name != "SIGINT":
                signal.raise_signal(number)  # a second one does not stop the cleaning up
            cleaned.append(True)

    monkeypatch.setattr(show, "summary", work)
    # The tests themselves may run where these are ignored.
    ours = {"SIGINT": signal.default_int_handler}.get(name, signal.SIG_DFL)
    before = signal.signal(number, ours)
    done = shell("summary", "deck")
    assert signal.signal(number, before) is ours
    assert done.status == status and done.err.strip() == "interrupted" and cleaned


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="terminals that hang up")
def test_a_signal_that_is_ignored_stays_so(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """As nohup does it."""
    monkeypatch.setattr(show, "summary", lambda options: signal.raise_signal(signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert shell("summary", "deck").status == 0
    assert signal.signal(signal.SIGHUP, before) is signal.SIG_IGN


def test_the_command_runs_in_any_thread(shell: Shell) -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(SystemExit) as end:
        pool.submit(cli.main, ["recipe"]).result()
    assert end.value.code == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device without space")
def test_output_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "addergraph", "recipe"], cwd=ROOT, stdout=full,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: cannot write the output: No space left on device\n"


def test_letters_that_the_terminal_lacks_are_written_as_escapes(tmp_path: Path) -> None:
    graph = "graph g(%ü: f32[3]) {\n  %y = relu(%ü) : f32[3]\n  return %y\n}"
    (tmp_path / "g.ag").write_text(graph, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "addergraph", "inspect", str(tmp_path / "g.ag")], cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and "graph g(%\\xfc: f32[3])" in done.stdout


def test_running_out_of_memory_is_an_error(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(options: Bench) -> None:
        raise MemoryError(said)

    monkeypatch.setattr("addergraph.cli.bench.bench.run", run)
    said = "Unable to allocate 47.7 GiB"
    error = shell.error("bench", "small-adder", "--batch", 10**8)
    assert error == "Unable to allocate 47.7 GiB; take fewer samples or a smaller batch"
    said = ""
    assert shell.error("bench").startswith("out of memory; take fewer samples")


def test_more_threads_than_processors_are_worth_a_word(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("addergraph.processors.os.sched_getaffinity", lambda pid: {3})
    done = shell("verify", "small-adder", "--samples", 1, "--threads", 2)
    assert done.status == 0
    assert done.err.startswith("warning: --threads 2: this process may use 1 processor, and")
    monkeypatch.setattr("addergraph.processors.os.sched_getaffinity", lambda pid: {3, 4})
    assert not shell("verify", "small-adder", "--samples", 1, "--threads", 2).err
