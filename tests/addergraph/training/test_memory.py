"""The memory that a training run needs, what there is, and the refusal."""

from __future__ import annotations

import re
import resource
from pathlib import Path

import pytest

from addergraph import compiler
from addergraph.errors import AdderGraphError, MemoryLimitError
from addergraph.ir.state import State
from addergraph.memory import Available
from addergraph.training import memory
from addergraph.training.memory import Need, require_memory, training_need
from tests.addergraph.models import fit, small_model

pytestmark = pytest.mark.usefixtures("quick_objects")

GIB = 1 << 30


def machine(root: Path, files: dict[str, str], free_kib: int = 8 << 20) -> Path:
    """A root folder with these files of the kernel, and MemAvailable."""
    meminfo = f"MemTotal: 99 kB\nMemAvailable:   {free_kib} kB\n"
    for name, text in {"proc/meminfo": meminfo, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def available(root: Path) -> Available:
    found = memory.available_memory(root)
    assert found is not None
    return found


def cgroup2(folder: str, most: str, used: int, cached: int = 0) -> dict[str, str]:
    return {
        f"{folder}/memory.max": f"{most}\n",
        f"{folder}/memory.current": f"{used}\n",
        f"{folder}/memory.stat": f"anon 5\ninactive_file {cached}\n",
    }


def test_the_machine_alone(tmp_path: Path) -> None:
    assert available(machine(tmp_path, {})) == Available(8 * GIB, "MemAvailable of /proc/meminfo")


def test_the_least_of_the_cgroups_above_counts(tmp_path: Path) -> None:
    top = "sys/fs/cgroup"
    files = {
        "proc/self/cgroup": "0::/a/b\n",
        **cgroup2(f"{top}/a/b", "max", GIB),
        **cgroup2(f"{top}/a", str(3 * GIB), 2 * GIB, cached=GIB // 2),
    }
    found = available(machine(tmp_path, files))
    assert found.nbytes == GIB + GIB // 2
    assert found.limit.endswith("sys/fs/cgroup/a")


def test_version_1_and_its_no_limit(tmp_path: Path) -> None:
    top = "sys/fs/cgroup/memory"
    files = {
        "proc/self/cgroup": "3:cpu:/x\n4:memory:/x\n0::/\n",
        f"{top}/x/memory.limit_in_bytes": f"{2 * GIB}\n",
        f"{top}/x/memory.usage_in_bytes": f"{3 * GIB}\n",
        f"{top}/memory.limit_in_bytes": "9223372036854771712\n",
        f"{top}/memory.usage_in_bytes": "7\n",
    }
    assert available(machine(tmp_path, files)).nbytes == 0  # over its limit already
    (tmp_path / f"{top}/x/memory.stat").write_text(f"total_inactive_file {2 * GIB}\n")
    assert available(tmp_path).nbytes == GIB


def test_inside_a_container_the_top_is_its_own(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/docker/1234\n", **cgroup2("sys/fs/cgroup", str(GIB), 24)}
    assert available(machine(tmp_path, files)).nbytes == GIB - 24


@pytest.mark.parametrize(("name", "used"), [("AS", 100), ("DATA", 60)])
def test_limits_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, used: int
) -> None:
    limited = getattr(resource, f"RLIMIT_{name}")

    def getrlimit(number: int) -> tuple[int, int]:
        infinite = resource.RLIM_INFINITY
        return (GIB, infinite) if number == limited else (infinite, infinite)

    monkeypatch.setattr(resource, "getrlimit", getrlimit)
    root = machine(tmp_path, {"proc/self/statm": "100 50 20 1 0 60 0\n"})
    expected = GIB - used * resource.getpagesize()
    assert available(root) == Available(expected, f"the limit RLIMIT_{name}")


def test_where_nothing_is_known_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert memory.available_memory(tmp_path) is None
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    require_memory(Need(1 << 60, 0, 0))


def test_this_machine_has_memory() -> None:
    found = memory.available_memory()
    assert found is None or found.nbytes > 1 << 20


def test_the_refusal_says_what_is_needed_and_what_limits() -> None:
    need = Need(arena=3 * GIB, state=GIB // 2, batches=1 << 20)
    require_memory(need, Available(need.total, "x"))
    with pytest.raises(MemoryLimitError) as caught:
        require_memory(need, Available(need.total - 1, "the limit RLIMIT_AS"))
    assert isinstance(caught.value, MemoryError) and isinstance(caught.value, AdderGraphError)
    assert str(caught.value) == (
        "the training needs 3.50 GiB: arena 3.00 GiB, state 512 MiB, batches 1.00 MiB; available "
        "are 3.50 GiB (the limit RLIMIT_AS). Use a smaller batch, free memory, or raise the limit"
    )


def test_the_need_is_that_of_the_compiled_step() -> None:
    model = small_model(input_shape=(8, 8, 1))
    step = model.train_step(4)
    graphs = [step.graph(4), step.graph(3)]
    need = training_need(graphs, batches=1, copies=1)
    assert need.arena == sum(compiler.arena_bytes(g) for g in graphs)
    assert need.arena == compiler.compile(graphs[0]).arena_bytes + compiler.arena_bytes(graphs[1])
    assert need.state == State(graphs[0].parameters).blob.nbytes
    assert need.batches == 4 * (4 * 64 + 4 * 10 + 1)
    assert training_need(graphs, [640, 64]).arena == 704


def test_a_run_shows_its_need(capsys: pytest.CaptureFixture[str]) -> None:
    # Batches of 40 and 30 samples.
    settings = {"engine": "native", "batch_size": 40, "epochs": 1, "verbose": 1}
    fit(small_model(), **settings, batch_norm_samples=0)
    before, took, line, epoch, *_ = capsys.readouterr().out.splitlines()
    step = small_model(input_shape=(8, 8, 1)).train_step(40)
    graphs = [step.graph(30), step.graph(40)]
    assert before.startswith("compiling the training step: a while the first time")
    assert re.fullmatch(r"compiled in \d+\.\d s", took)
    assert line == f"memory {training_need(graphs)}"
    assert training_need(graphs, [step.arena_bytes(30), step.arena_bytes(40)]).arena > 0
    assert epoch.startswith("epoch 1/1")
    fit(small_model(), **settings)
    _, _, with_statistics, *_ = capsys.readouterr().out.splitlines()
    assert with_statistics.startswith("memory ") and with_statistics != line


def test_a_run_that_does_not_fit_is_refused_before_its_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: Available(1000, "a test"))
    model = small_model(input_shape=(8, 8, 1))
    before = {name: array.copy() for name, array in model.weights.items()}
    with pytest.raises(MemoryLimitError, match=r"available are 1000 B \(a test\)"):
        fit(model, engine="native", checkpoint=tmp_path / "run")
    assert all((model.weights[name] == array).all() for name, array in before.items())
    assert not (tmp_path / "run").exists()
    fit(model, engine="reference")  # not limited by an arena
