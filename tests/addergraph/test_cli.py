"""The command line: what a newcomer types, what it prints, how it fails."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, compiler, layers, ops, zoo
from addergraph.cli import main as cli
from addergraph.cli.commands import show
from addergraph.codegen.emit import lowered
from addergraph.codegen.run import cache, jit
from addergraph.codegen.run.jit import Program
from addergraph.codegen.run.native import NativeLibrary
from addergraph.ir import Array, Graph
from addergraph.ir.trace import Tensor
from addergraph.report.drawing import to_svg
from addergraph.report.lints import lint
from addergraph.report.summary import summary_text
from tests.addergraph.shell import Shell

pytestmark = pytest.mark.usefixtures("quick_objects")


def tiny() -> Model:
    """A quick network whose answers vary."""
    model = Model(input_shape=(5, 5, 2), name="tiny", seed=1)
    for layer in (layers.Adder(4, kernel_size=3), layers.Flatten(), layers.Dense(3)):
        model.add(layer)
    return model


@pytest.fixture
def model(shell: Shell) -> Model:
    """`tiny`, also in m.safetensors, as net.ag with net.npz, and samples in x.npz."""
    made = tiny()
    made.save("m.safetensors")
    Path("net.ag").write_text(f"# a comment\n{made.graph(training=False)}\n")
    np.savez("net.npz", **made.weights)  # type: ignore[arg-type]
    np.savez("x.npz", x=samples())
    return made


def samples() -> Array:
    return np.random.default_rng(0).normal(size=(7, 5, 5, 2)).astype(np.float32)


# --- summary and inspect --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["small-adder", "all-adder", "small-conv", "deck"])
def test_summary_of_a_network_by_name(shell: Shell, name: str) -> None:
    out = shell.ok("summary", name)
    model = zoo.build(name)
    if "adder" in name:
        assert "%" not in model.summary_text()  # no weights yet, and looking draws none
        kept = np.mean(model.weights["adder1.f"] > 0)
        assert f" {100 * kept:.0f}%" in out
    assert model.weights
    assert out == model.summary_text() + "\n"


def test_summary_of_nothing_lists_the_networks(shell: Shell) -> None:
    lines = shell.ok("summary").splitlines()[2:]
    rows = [line.split() for line in lines if line[0] != " "]  # descriptions go on below
    assert [row[0] for row in rows] == list(zoo.NETWORKS)
    assert ["resnet20", "32x32x3", "10", "9", "residual", "blocks"] in [row[:6] for row in rows]


def test_summary_of_files(shell: Shell, model: Model) -> None:
    assert shell.ok("summary", "m.safetensors") == model.summary_text() + "\n"
    bare = shell.ok("summary", "net.ag")  # no numbers, so no share of taps above zero
    assert "%" not in bare
    graph = model.graph(training=False)
    assert bare == summary_text(graph, lint(graph), arena=compiler.arena_bytes(graph)) + "\n"
    assert 'warning: adder2d "adder1" reaches dense "dense1" without a batch norm' in bare


def test_summary_of_other_first_and_last_layers(shell: Shell) -> None:
    out = shell.ok("summary", "small-adder", "--first", "adder", "--last", "adder")
    model = zoo.build("small-adder", first="adder", last="adder")
    assert out == shell.ok("summary", "all-adder").replace("all_adder", "small_adder")
    assert model.weights and out == model.summary_text() + "\n"


def test_inspect_shows_the_graph_before_and_after(shell: Shell, model: Model) -> None:
    out = shell.ok("inspect", "m.safetensors")
    before, after = out.removeprefix("# as declared\n").split("\n# after the pipeline\n")
    assert ag.parse(before) == model.graph(training=False)
    assert ag.parse(after).name == "tiny"
    assert shell.ok("inspect", "net.ag") == out


def test_inspect_views(shell: Shell, model: Model) -> None:
    assert shell.ok("inspect", "net.ag", "--dot").startswith('digraph "tiny" {')
    assert "arena" in shell.ok("inspect", "net.ag", "--plan")
    passes = shell.ok("inspect", "small-adder", "--passes")
    assert [line.split()[2] for line in passes.splitlines() if line.startswith("# after")] == [
        "canonicalize", "fold_batch_norm", "ranges", "eliminate", "forget_scales",
        "fuse",
    ]  # fmt: skip
    assert shell.ok("inspect", "net.ag", "--after", "canonicalize").count("# after") == 1
    (fused,) = shell.ok("inspect", "net.ag", "--after", "fuse").split("# after fuse\n")[1:]
    assert fused.strip() in shell.ok("inspect", "net.ag", "--passes")
    planned = shell.ok("inspect", "small-adder", "--after", "plan_memory")
    assert (
        "computed once for given weights:\ngraph small_adder_setup(" in planned
        and "arena" in planned
    )
    census = shell.ok("inspect", "net.ag", "--census", "--target", "x86-64-v3")
    assert "instructions emitted for x86-64-v3" in census
    assert "multiplication-free: no" in census


def test_inspect_draws(shell: Shell, model: Model) -> None:
    assert shell.ok("inspect", "net.ag", "--svg", "g.svg") == "g.svg: 3 nodes\n"
    assert Path("g.svg").read_text() == to_svg(model.graph(training=False))
    shell.ok("inspect", "m.safetensors", "--svg", "g.svg", "--after", "plan_memory")
    assert "f32[1,5,5,2]" in Path("g.svg").read_text()  # one sample
    assert "no folder" in shell.error("inspect", "net.ag", "--svg", "nowhere/g.svg")
    assert shell.error("inspect", "no.ag", "--svg", "g.png").startswith('--svg "g.png": the name')
    assert not Path("g.png").exists()


def test_inspect_of_other_ends(shell: Shell) -> None:
    adders = shell.ok("inspect", "small-adder", "--dot", "--first", "adder", "--last", "adder")
    assert "conv2d" not in adders and "conv2d" in shell.ok("inspect", "small-adder", "--dot")
    assert "go with the name" in shell.error("inspect", "m.safetensors", "--first", "conv")


# --- compile and run ------------------------------------------------------------------------------


@pytest.mark.needs("cc")
def test_compile_run_and_verify_a_library(shell: Shell, model: Model) -> None:
    out = shell.ok("compile", "m.safetensors", "--output", "build", "--name", "mine")
    for file in ("mine.o", "mine_data.o", "libmine.a", "libmine.so", "mine.h", "example/main.c"):
        assert f"build/{file} " in out
        size = int(
            next(x for x in out.splitlines() if f"build/{file} " in x).split()[0].replace(",", "")
        )
        assert size == Path("build", file).stat().st_size
    assert "a call needs an arena of " in out
    written = shell.ok("run", "--native", "build", "-i", "x.npz", "-o", "y.npz")
    name = model.graph(training=False).outputs[0].name
    assert written == f"wrote y.npz: {name} float32[7, 3]\n"
    np.testing.assert_array_equal(np.load("y.npz")[name], ag.compile(model)(samples()))
    assert "passed" in shell.ok("verify", "m.safetensors", "--native", "build")


def test_compile_for_another_machine(
    shell: Shell, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")  # whether this machine has a cross compiler or not
    target = ("--target", "aarch64-linux-gnu")
    out = shell.ok("compile", "net.ag", "--weights", "net.npz", "-o", "build", *target)
    assert "libtiny.a" in out
    assert "no shared library: there was no C compiler (aarch64-linux-gnu-gcc) to link it" in out


def test_compile_tuned_for_a_cpu(shell: Shell, model: Model) -> None:
    command = ("compile", "m.safetensors", "-o", "build", "--target", "riscv64-linux-gnu")
    assert "libtiny.a" in shell.ok(*command, "--tune-for", "generic")
    assert 'unknown machine "znver55" (did you mean "znver5"?)' in shell.error(
        *command, "--tune-for", "znver55"
    )


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_run_the_text_of_a_graph(shell: Shell, model: Model, engine: str) -> None:
    shell.ok(
        "run", "net.ag", "--weights", "net.npz", "-i", "x.npz", "-o", "y.npz", "--engine", engine,
        "--threads", 2,
    )  # fmt: skip
    expected = ag.interpret(model.graph(training=False), samples(), weights=model.weights)
    assert isinstance(expected, np.ndarray)
    (found,) = np.load("y.npz").values()
    if engine == "reference":
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_run_several_inputs_and_outputs_by_name(shell: Shell) -> None:
    def both(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        # "file" is a name that np.savez keeps for itself.
        return ops.add(x, y, name="file"), ops.sub(x, y, name="rest")

    graph = ag.trace(both, *[ag.tensor("f32", ("N", 2))] * 2)
    Path("g.ag").write_text(str(graph))
    np.savez("in.npz", y=np.ones((3, 2)), x=np.full((3, 2), 5.0))
    shell.ok("run", "g.ag", "-i", "in.npz", "-o", "out.npz")
    found = np.load("out.npz")
    assert {name: float(found[name][0, 0]) for name in found} == {"file": 6.0, "rest": 4.0}


# --- verify and bench -----------------------------------------------------------------------------


def test_verify_passes(shell: Shell, model: Model) -> None:
    out = shell.ok("verify", "m.safetensors", "--samples", 20, "--seed", 3, "--threads", 2)
    assert 'verify "tiny": 20 samples, random inputs of seed 3: passed' in out
    out = shell.ok("verify", "net.ag")
    assert out.startswith("note: no --weights")
    given = shell.ok("verify", "net.ag", "--weights", "net.npz", "--input", "x.npz", "--batch", 7)
    assert "given inputs: passed" in given
    assert "note" not in given


def test_verify_by_layers(shell: Shell, model: Model) -> None:
    pytest.importorskip("matplotlib")
    out = shell.ok(
        "verify", "net.ag", "--weights", "net.npz", "--layers", "--input", "x.npz",
        "--plot", "errors.png",
    )  # fmt: skip
    assert 'verify "tiny": 7 samples, given inputs: passed' in out
    assert 'layers of "tiny": 7 samples, given inputs: passed' in out
    assert Path("errors.png").read_bytes().startswith(b"\x89PNG")
    out = shell.ok("verify", "m.safetensors", "--layers")
    assert 'verify "tiny": 100 samples' in out
    assert 'layers of "tiny": 16 samples, random inputs of seed 0: passed' in out


def test_verify_by_layers_names_the_first_one_and_ends_with_status_1(
    shell: Shell, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = lowered.pack_weights

    def wrong(facts: Any, graph: Any, numbers: Mapping[str, Array]) -> Array:
        """Packs one weight of the last layer wrong, in every program."""
        changed = {name: array.copy() for name, array in numbers.items()}
        changed["dense1.f"][3, 1] += 1
        return pack(facts, graph, changed)

    monkeypatch.setattr(jit, "pack_weights", wrong)
    done = shell("verify", "m.safetensors", "--layers")
    assert done.status == 1
    assert 'first differing layer: dense "dense1"' in done.out
    assert "every layer is right by itself" not in done.out


def test_verify_by_layers_says_when_only_the_outputs_differ(
    shell: Shell, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile = compiler.compile

    def wrong(graph: Graph, **options: Any) -> Program:
        program = compile(graph, **options)
        run = program.run
        monkeypatch.setattr(program, "run", lambda inputs: tuple(y + 1 for y in run(inputs)))
        return program

    monkeypatch.setattr(compiler, "compile", wrong)
    done = shell("verify", "m.safetensors", "--layers")
    assert done.status == 1
    assert 'layers of "tiny": 16 samples, random inputs of seed 0: passed' in done.out
    assert "every layer is right by itself, but the outputs are not" in done.out


@pytest.mark.needs("cc")
def test_verify_refuses_the_library_of_another_model(shell: Shell, model: Model) -> None:
    """Its differences would look like mistakes of the compiler."""
    weights = {name: array.copy() for name, array in model.weights.items()}
    weights["adder1.f"][0, 1, 0, 2] += 0.5
    ag.compile(model.graph(training=False), weights=weights).export("build")
    error = shell.error("verify", "m.safetensors", "--native", "build")
    assert error.startswith('"build" was exported from another network of the name "tiny": its wei')


@pytest.mark.needs("cc")
def test_verify_fails_with_status_1_when_the_library_is_wrong(
    shell: Shell, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    ag.compile(model).export("build")
    right = NativeLibrary.run
    monkeypatch.setattr(NativeLibrary, "run", lambda *a: tuple(1.01 * y for y in right(*a)))
    done = shell("verify", "m.safetensors", "--native", "build")
    assert done.status == 1 and "FAILED" in done.out


@pytest.mark.needs("cc")
def test_compile_does_not_replace_another_network(shell: Shell, model: Model) -> None:
    compile = ("compile", "m.safetensors", "-o", "build")
    shell.ok(*compile)
    shell.ok(*compile)
    other = Model(input_shape=(5, 5, 2), name="tiny")
    for layer in (layers.Adder(4, kernel_size=3), layers.Flatten(), layers.Dense(2)):
        other.add(layer)
    other.save("m.safetensors")
    assert shell.error(*compile).startswith('"build" holds the library "tiny" of another network;')
    assert "its graph differs" in shell.error("verify", "m.safetensors", "--native", "build")
    shell.ok(*compile, "--overwrite")
    assert "passed" in shell.ok("verify", "m.safetensors", "--native", "build")


@pytest.mark.needs("cc")
def test_verify_refuses_a_library_of_another_graph(shell: Shell, model: Model) -> None:
    out = shell.ok("compile", "m.safetensors", "-o", "my folder")
    assert "make -C 'my folder/example'" in out, "as a shell takes it"
    error = shell.error("verify", "small-adder", "--native", "my folder")
    name = model.graph(training=False).name
    assert error.startswith(f'"my folder" holds the graph "{name}", which is no code of "small_ad')


def test_bench_prints_a_row_for_each_way(shell: Shell, model: Model) -> None:
    out = shell.ok("bench", "m.safetensors", "--seconds", 0, "--batch", 4, "--threads", 2)
    for row in ("NumPy reference", "native, 1 thread ", "native, 2 threads "):
        assert row in out
    assert "tiny, batch 4, " in out
    assert "multiply-add peak" in out
    assert "0.001 million terms an image" in out  # 3 * 3 * 4 outputs of 18 terms, 36 * 3 products


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("summary", "no.safetensors"), 'cannot read "no.safetensors": No such file'),
        (("summary", "broken.safetensors"), '"broken.safetensors" is truncated'),
        (("summary", "small_ader"), '(did you mean "small-adder"?)'),
        (("summary", "m.safetensors", "--last", "conv"), "go with the name of a built-in network"),
        (("summary", "binary.ag"), '"binary.ag" is not text'),
        (
            ("inspect", "net.ag", "--after", "hoisted"),
            'unknown pass "hoisted" (did you mean "hoist"?); known: canonicalize, ',
        ),
        (("inspect", "typo.ag"), '"typo.ag", line 1, column 1: expected "graph", found "grpah"'),
        (
            ("inspect", "m.safetensors", "--plan", "--target", "pentium"),
            'unknown target or CPU "pen',
        ),
        (("compile", "net.ag", "-o", "b"), '"net.ag" has parameters: give their numbers'),
        (("compile", "m.safetensors", "-o", "x.npz"), "x.npz"),
        (("compile", "m.safetensors", "-o", "b", "--weights", "net.npz"), "--weights goes with"),
        (("verify", "net.ag", "--weights", "x.npz"), '"x.npz" has no array "adder1.f"'),
        (("verify", "small-adder", "--weights", "x.npz"), "starts with random weights"),
        (("run", "-i", "x.npz", "-o", "y.npz"), "give either FILE or --native FOLDER"),
        (("run", "m.safetensors", "-i", "net.npz", "-o", "y.npz"), 'has no array "x"'),
        (("run", "m.safetensors", "-i", "flat.npz", "-o", "y.npz"), "expected f32[N,5,5,2]"),
        (("run", "m.safetensors", "-i", "x.npz", "-o", "y.txt"), "ends in .npz"),
        (("run", "m.safetensors", "-i", "x.npz", "-o", "no/y.npz"), 'there is no folder "'),
        (("run", "--native", "no", "-i", "x.npz", "-o", "y.npz"), "no"),
        (("verify", "training.ag"), "updates parameters"),
        (("verify", "net.ag", "--plot", "a.png"), "give --layers, too"),
        (("verify", "net.ag", "--layers", "--plot", "a.gif"), "ends in .png, .svg, .pdf"),
        (("verify", "net.ag", "--layers", "--native", "build"), "leave out --native"),
        (("bench", "training.ag"), "updates parameters"),
    ],
)
def test_bad_input_is_one_error(
    shell: Shell, model: Model, arguments: tuple[str, ...], message: str
) -> None:
    Path("broken.safetensors").write_bytes(Path("m.safetensors").read_bytes()[:100])
    Path("binary.ag").write_bytes(b"graph \xff\xfe")
    Path("typo.ag").write_text("grpah x() {}")
    Path("training.ag").write_text(
        "graph count(%x: f32[]) params(%n: f32[] fixed) {\n  %y = add(%n, %x) : f32[]\n"
        "  update %n <- %y\n  return %y\n}"
    )
    np.savez("flat.npz", x=np.zeros((2, 50)))
    assert message in shell.error(*arguments)
    assert not Path("y.npz").exists()


@pytest.mark.parametrize(
    "arguments", [("inspect",), ("sumary", "x"), ("train", "--epochs", "0"), ("inspect", "--no")]
)
def test_usage_errors_end_with_status_2(shell: Shell, arguments: tuple[str, ...]) -> None:
    done = shell(*arguments)
    assert done.status == 2
    assert "Usage: addergraph" in done.err


def test_an_unforeseen_error_keeps_its_traceback(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(options: show.Summary) -> None:
        raise ZeroDivisionError(options.file)

    monkeypatch.setattr(show, "summary", fail)
    with pytest.raises(ZeroDivisionError, match="deck"):
        cli.main(["summary", "deck"])


def test_the_cache_is_listed_and_cleared(
    shell: Shell, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path("objects").absolute()
    monkeypatch.setenv("ADDERGRAPH_CACHE", str(folder))
    assert shell.ok("cache") == f"{folder}: 0 entries, 0 B of at most 1.00 GiB\n"
    shell.ok("verify", "m.safetensors", "--samples", 1)
    entries = sum(p.suffix != ".lock" for p in folder.iterdir())
    assert f"{entries} entries, " in shell.ok("cache")
    assert shell.ok("cache", "--clear").endswith(" removed\n")
    assert "0 entries" in shell.ok("cache")
    monkeypatch.setenv("ADDERGRAPH_CACHE", "")
    assert shell.ok("cache").startswith("there is no cache: ADDERGRAPH_CACHE is empty")


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_a_cache_that_others_may_write_is_passed_over(
    shell: Shell, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("objects").mkdir()
    Path("objects").chmod(0o777)
    monkeypatch.setenv("ADDERGRAPH_CACHE", "objects")
    cache._say.cache_clear()
    done = shell("verify", "m.safetensors", "--samples", 1)
    assert done.status == 0 and "passed" in done.out
    (line,) = done.err.splitlines()
    assert line.startswith('warning: the cache of compiled code is not used: others may write "obj')
