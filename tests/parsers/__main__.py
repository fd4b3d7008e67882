"""`make campaign-parsers`: a coverage-guided fuzzer (atheris) on each parser of files from outside.

    python -m tests.parsers [NAME ...] [--runs N] [--output FOLDER] [--minimise]

Each parser gets N inputs in all, in a process of its own; what was done before in the FOLDER
counts, so a campaign that was stopped goes on. FOLDER/NAME/state.json has the counts, `findings`
the inputs that broke a promise (targets.py), each kind of failure once. `--minimise` instead puts
the smallest inputs that take every way seen into tests/parsers/corpus. The exit status is 1 where
something was found. Only the project's own modules are instrumented.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NAMES = (  # the quickest first
    "idx", "log", "recipe", "module", "metadata", "cifar", "checkpoint", "npz", "state", "archive",
    "onnx", "graph", "quantized", "object-x86-64", "object-aarch64", "object-thumb", "object-riscv",
    "object-riscv64", "model",
)  # fmt: skip
RUNS = 1_000_000
HANGS = 60  # seconds after which an input ends the process; examine() finds shorter ones
STEP = 1000  # inputs between two writes of state.json
KEPT_BYTES = 60_000  # of a parser's inputs in the tree, before they are packed
WORD = re.compile(rb"[A-Za-z_][A-Za-z_0-9]{1,30}")
INSTALL = "the campaign needs atheris: pip install -e '.[fuzz]'"


def main() -> int:
    reader = argparse.ArgumentParser(prog="python -m tests.parsers")
    reader.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    reader.add_argument("--runs", type=int, default=RUNS)
    reader.add_argument("--output", type=Path, default=Path("build/campaign-parsers"))
    reader.add_argument("--minimise", action="store_true")
    reader.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = reader.parse_args()
    if unknown := set(given.names) - set(NAMES):
        reader.error(f"no parser is called {sorted(unknown)[0]}: {', '.join(NAMES)}")
    if not given.minimise and importlib.util.find_spec("atheris") is None:
        reader.exit(2, f"{INSTALL}\n")
    if given.here:
        return fuzz(given.names[0], given.runs, given.output / given.names[0])
    for name in given.names or NAMES:
        folder = given.output / name
        if given.minimise:
            minimise(name, folder)
        elif not campaign(name, given.runs, given.output):
            return 1
        print(f"{name}: {_said(folder)}", flush=True)
    return int(any(_findings(given.output / name) for name in given.names or NAMES))


# --- around the process that fuzzes ---------------------------------------------------------------


def campaign(name: str, runs: int, output: Path) -> bool:
    """Starts the fuzzer until `runs` inputs are done; False where it cannot start."""
    folder = output / name
    (folder / "findings").mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.parsers", name, "--here", "--runs", str(runs)]
    while (before := state_of(folder)["inputs"]) < runs:
        with open(folder / "log", "ab") as log:
            status = subprocess.run(
                [*command, "--output", str(output)], cwd=ROOT, stdout=log, stderr=log, check=False
            ).returncode
        state = state_of(folder)
        state["edges"] = max([state["edges"], *_edges(folder / "log")])
        _write(folder, state)
        if status and state["inputs"] == before:
            print(f"{name}: ends with status {status}; see {folder / 'log'}", file=sys.stderr)
            return False
    return True


def state_of(folder: Path) -> dict[str, Any]:
    path = folder / "state.json"
    fresh = {"inputs": 0, "accepted": 0, "seconds": 0.0, "edges": 0}
    return fresh | (json.loads(path.read_text()) if path.exists() else {})


def _write(folder: Path, state: dict[str, Any]) -> None:
    (folder / "state.tmp").write_text(json.dumps(state, sort_keys=True))
    (folder / "state.tmp").replace(folder / "state.json")


def _edges(log: Path) -> list[int]:
    """How many edges libFuzzer says are covered."""
    return [int(found) for found in re.findall(rb"cov: (\d+)", log.read_bytes())]


def _findings(folder: Path) -> list[Path]:
    return sorted((folder / "findings").glob("*.input"))


def _said(folder: Path) -> str:
    state = state_of(folder)
    return (
        f"{state['inputs']:,} inputs, {state['accepted']:,} accepted, {state['edges']:,} edges, "
        f"{len(_findings(folder))} findings, {state['seconds']:,.0f} s"
    )


# --- in the process that fuzzes -------------------------------------------------------------------


def fuzz(name: str, runs: int, folder: Path) -> int:
    """Gives the parser what is left of `runs`; libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["addergraph"]):
        from . import corpus, mutate, targets

        target = targets.TARGETS[name]
        scratch = Path(tempfile.mkdtemp(prefix="parsers", dir=_memory()))
        first = list(corpus.kept(name).values()) or _seeds(name)
        for data in first:  # imports what the parser imports when it is first called
            targets.examine(target, data, scratch)
    inputs = folder / "corpus"
    inputs.mkdir(exist_ok=True)
    for key, data in corpus.named(first).items():
        (inputs / key).write_bytes(data)
    words = dict.fromkeys(word for data in first for word in WORD.findall(data))
    lines = [f'"{word.decode()}"\n' for word in [b"--", *words][:400]]
    (folder / "words").write_text("".join(lines))
    limit_memory(targets.NBYTES)
    state, start = state_of(folder), time.monotonic()
    spent, left = state["seconds"], runs - state["inputs"]

    def one(data: bytes) -> None:
        state["inputs"] += 1
        try:
            state["accepted"] += targets.examine(target, data, scratch)
        except Exception as error:  # whatever a parser may not raise is what is looked for
            _keep(folder / "findings", data, error)
        if state["inputs"] % STEP == 0 or state["inputs"] >= runs:
            state["seconds"] = round(spent + time.monotonic() - start, 1)
            _write(folder, state)
        if state["inputs"] >= runs:
            shutil.rmtree(scratch)

    options = [
        f"-atheris_runs={left}", f"-max_len={targets.LONGEST}", f"-timeout={HANGS}",
        f"-artifact_prefix={folder / 'findings'}/", f"-dict={folder / 'words'}",
        "-rss_limit_mb=0", "-detect_leaks=0", "-print_final_stats=1",
    ]  # fmt: skip
    texts = list(words)

    def change(data: bytes, most: int, seed: int) -> bytes:
        if name not in mutate.TEXTS or seed % 2:
            return bytes(atheris.Mutate(data, most))
        return mutate.mutated(data, seed, texts)[:most]

    atheris.Setup([sys.argv[0], *options, str(inputs)], one, custom_mutator=change)
    atheris.Fuzz()
    return 0


def _seeds(name: str) -> list[bytes]:
    from . import seeds  # takes seconds

    return seeds.seeds(name)


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def limit_memory(more: int) -> None:
    """No more than `more` bytes beside those that the process has: a MemoryError is a finding."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _keep(folder: Path, data: bytes, error: Exception) -> None:
    """The input with its traceback, unless one that failed at the same place is there."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f.filename.startswith(str(ROOT)) and "/tests/" not in f.filename]
    place = (ours or frames)[-1]
    key = f"{type(error).__name__}-{Path(place.filename).stem}-{place.lineno}"
    path = folder / f"{key}.input"
    if not path.exists() or len(data) < path.stat().st_size:
        path.write_bytes(data)
        path.with_suffix(".txt").write_text("".join(traceback.format_exception(error)))


def minimise(name: str, folder: Path) -> None:
    """Puts the fewest inputs, with those that once broke a promise, into the tree."""
    from . import corpus, seeds, targets

    target = targets.TARGETS[name]
    inputs = [b"", *seeds.seeds(name), *corpus.files_in(folder / "corpus")]
    bugs = {key: data for key, data in corpus.kept(name).items() if key.startswith("bug-")}
    with tempfile.TemporaryDirectory(dir=_memory()) as scratch:
        few = corpus.minimised(
            inputs, lambda data: targets.examine(target, data, Path(scratch)), KEPT_BYTES
        )
    corpus.keep(name, corpus.named(few) | bugs)


if __name__ == "__main__":
    sys.exit(main())
