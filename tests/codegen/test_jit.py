"""Programs in this process: the cache behind them, threads, states, and wrong use."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from addergraph import compiler
from addergraph.codegen import llvm
from addergraph.codegen.run.jit import Built, Program
from addergraph.codegen.targets.lookup import TARGETS, runnable
from addergraph.errors import AdderGraphError, DataError, ShapeError, TargetError
from addergraph.ir import Array
from addergraph.ir.interpreter import run_reference
from addergraph.ir.state import State
from addergraph.ir.text import parse
from tests.codegen.growth import growth
from tests.codegen.states import step

NETWORK = parse(
    """graph net(%x: f32[N,5,6,3], %shift: f32[7]) params(%f: f32[3,3,3,7], %g: f32[7,7]) {
      %a = adder2d(%x, %f) padding=(1,1,1,1) : f32[N,5,6,7]
      %b = add(%a, %shift) : f32[N,5,6,7]
      %c = relu(%b) : f32[N,5,6,7]
      %d = reduce_sum(%c) axes=(1,2) : f32[N,7]
      %e = adder_dense(%d, %g) : f32[N,7]
      return %e, %c
    }"""
)

# What is cached, and when, does not depend on what is compiled.
SMALL = parse(
    """graph small(%x: f32[N,2,3,2]) params(%f: f32[2,2,2,3]) {
      %y = adder2d(%x, %f) padding=(1,0,0,1) : f32[N,2,3,3]
      return %y
    }"""
)


def numbers(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)


def weights() -> dict[str, Array]:
    return {"f": numbers(1, 3, 3, 3, 7), "g": numbers(2, 7, 7)}


FEW = {"f": numbers(1, 2, 2, 2, 3)}  # of SMALL


def rows(count: int) -> list[Array]:
    return [numbers(3, count, 2, 3, 2)]


def samples(count: int, seed: int = 3) -> list[Array]:
    return [numbers(seed, count, 5, 6, 3), 75 + numbers(4, 7)]


def require_same(found: tuple[Array, ...], expected: tuple[Array, ...]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADDERGRAPH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The IR of everything that LLVM was asked to compile."""
    asked: list[str] = []
    original = llvm.compile_object

    def counted(text: str, target: Any) -> bytes:
        asked.append(text)
        return original(text, target)

    monkeypatch.setattr(llvm, "compile_object", counted)
    return asked


# -- the cache -----------------------------------------------------------------------------------


def test_a_hit_compiles_nothing_and_computes_the_same(cache: Path, compilations: list[str]) -> None:
    first = compiler.compile(SMALL, weights=FEW)
    second = compiler.compile(SMALL, weights=FEW)
    assert len(compilations) == 1
    assert second.built.code == first.built.code and second.built.facts == first.built.facts
    expected = run_reference(SMALL, rows(3), FEW)[0]
    require_same(second.run(rows(3)), expected)


def test_weights_are_no_part_of_the_key(cache: Path, compilations: list[str]) -> None:
    compiler.compile(SMALL, weights=FEW)
    others = {name: array + 1 for name, array in FEW.items()}
    program = compiler.compile(SMALL, weights=others)
    assert len(compilations) == 1
    require_same(program.run(rows(2)), run_reference(SMALL, rows(2), others)[0])


def test_graph_target_and_batch_are_parts_of_the_key(cache: Path, compilations: list[str]) -> None:
    compiler.compile(SMALL, weights=FEW)
    compiler.compile(SMALL, weights=FEW, target="toy")
    compiler.compile(SMALL, weights=FEW, batch=1)
    compiler.compile(SMALL, weights=FEW, batch=2)
    other = parse(str(SMALL).replace("padding=(1,0,0,1)", "padding=(0,1,0,1)"))
    compiler.compile(other, weights=FEW)
    assert len(compilations) == len(list(cache.iterdir())) == 5


def _truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flipped(data: bytes) -> bytes:
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


def _flipped_facts(data: bytes) -> bytes:
    return data.replace(b'"weights_bytes": ', b'"weights_bytes": 1', 1)


DAMAGES = [_truncated, _flipped, _flipped_facts, lambda data: b"", lambda data: b"\n\n"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_compiled_again(
    damage: Callable[[bytes], bytes], cache: Path, compilations: list[str]
) -> None:
    compiler.compile(SMALL, weights=FEW)
    (entry,) = cache.iterdir()
    good = entry.read_bytes()
    assert damage(good) != good
    entry.write_bytes(damage(good))
    program = compiler.compile(SMALL, weights=FEW)
    assert len(compilations) == 2
    assert entry.read_bytes() == good  # repaired, and the same bytes
    require_same(program.run(rows(2)), run_reference(SMALL, rows(2), FEW)[0])


def test_entries_that_change_places_are_compiled_again(
    cache: Path, compilations: list[str]
) -> None:
    """An intact entry under another key is another program."""
    compiler.compile(SMALL, weights=FEW, target="toy")
    compiler.compile(SMALL, weights=FEW, target="x86-64")
    one, other = cache.iterdir()
    data = one.read_bytes(), other.read_bytes()
    one.write_bytes(data[1])
    other.write_bytes(data[0])
    for target in ("toy", "x86-64"):
        program = compiler.compile(SMALL, weights=FEW, target=target)
        require_same(program.run(rows(2)), run_reference(SMALL, rows(2), FEW)[0])
    assert len(compilations) == 4


def test_an_unwritable_cache_is_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compilations: list[str]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("ADDERGRAPH_CACHE", str(tmp_path / "file" / "cache"))
    for _ in range(2):
        program = compiler.compile(SMALL, weights=FEW)
    assert len(compilations) == 2
    require_same(program.run(rows(1)), run_reference(SMALL, rows(1), FEW)[0])


@pytest.mark.slow
def test_the_same_graph_gives_the_same_bytes_in_another_process(cache: Path) -> None:
    code = compiler.compile(NETWORK, weights=weights(), target="x86-64", cache=False).built.code
    script = (
        "import sys\nfrom addergraph import compiler\nfrom addergraph.ir.text import parse\n"
        "built = compiler.build(parse(sys.stdin.read()), target='x86-64', cache=False)\n"
        "sys.stdout.buffer.write(built.code)"
    )
    made = subprocess.run(
        [sys.executable, "-c", script], input=str(NETWORK).encode(), capture_output=True, check=True
    )
    assert made.stdout == code


# -- threads -------------------------------------------------------------------------------------


@functools.cache
def built(batch: int | None) -> Built:
    return compiler.build(NETWORK, weights(), batch=batch, cache=False)


def network(threads: int, batch: int | None = None) -> Program:
    return Program(built(batch), weights(), None, threads)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [None, 3])
def test_many_python_threads_may_call_one_program(threads: int, batch: int | None) -> None:
    program = network(threads, batch)
    data = [samples(3 if batch else 1 + k % 4, seed=k) for k in range(12)]
    expected = [run_reference(NETWORK, d, weights())[0] for d in data]

    def work(caller: int) -> None:
        for turn in range(40):
            k = (caller + turn) % len(data)
            require_same(program.run(data[k]), expected[k])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


@pytest.mark.parametrize("threads", [1, 2])
def test_weights_may_be_replaced_while_calls_run(threads: int) -> None:
    program = network(threads)
    choices = [{name: array + k for name, array in weights().items()} for k in range(2)]
    data = samples(6)
    expected = [run_reference(NETWORK, data, w)[0] for w in choices]
    wanted = [{e[0].tobytes() + e[1].tobytes()} for e in expected]

    def work(caller: int) -> None:
        for _ in range(60):
            first, second = program.run(data)
            assert any(first.tobytes() + second.tobytes() in w for w in wanted)

    with ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(work, k) for k in range(3)]
        for turn in range(120):
            program.set_weights(choices[turn % 2])
        for caller in callers:
            caller.result()


@pytest.mark.parametrize("threads", [1, 2, 5, 16])
def test_results_do_not_depend_on_threads(threads: int) -> None:
    """More threads than samples and than cores as well."""
    for batch in (None, 2):
        program = network(threads, batch)
        for count in (2,) if batch else (1, 2, 7, 0):
            expected = run_reference(NETWORK, samples(count), weights())[0]
            require_same(program.run(samples(count)), expected)


@pytest.mark.parametrize("threads", [0, -1, 1.5])
def test_threads_must_be_a_positive_integer(threads: Any) -> None:
    with pytest.raises(DataError, match=r"threads=.* from 1 to 1024"):
        compiler.compile(NETWORK, weights=weights(), threads=threads)


def test_an_empty_batch_is_an_empty_answer() -> None:
    program = compiler.compile(NETWORK, weights=weights(), cache=False)
    dense, image = program.run(samples(0))
    assert dense.shape == (0, 7) and image.shape == (0, 5, 6, 7)
    bound = compiler.compile(NETWORK, weights=weights(), batch=0, cache=False)
    assert bound.run(samples(0))[0].shape == (0, 7)


# -- states --------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_programs_of_two_batch_sizes_share_a_state(threads: int) -> None:
    start = {"w": numbers(5, 4, 3), "count": np.zeros((), np.float32)}
    state = State(step(2).parameters)
    state.load(start)
    programs = {
        n: compiler.compile(step(n), state=state, threads=threads, cache=False) for n in (2, 3)
    }
    expected = dict(start)
    for turn, batch in enumerate((2, 3, 2, 2, 3)):
        x = numbers(turn, batch, 4) / 64
        outputs, updates = run_reference(step(batch), [x], expected)
        np.testing.assert_allclose(programs[batch](x), outputs[0], rtol=1e-5, atol=1e-5)
        expected |= updates
    np.testing.assert_allclose(state.views["w"], expected["w"], rtol=1e-5, atol=1e-5)
    assert state.views["count"] == 5 and programs[2].weights["count"] == 5


def test_calls_with_updates_take_turns() -> None:
    start = {"w": numbers(6, 4, 3), "count": np.zeros((), np.float32)}
    program = compiler.compile(step(2), weights=start, threads=2, cache=False)
    x = np.zeros((2, 4), np.float32)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: [program(x) for _ in range(50)], range(6)))
    assert program.state is not None and program.state.views["count"] == 300


def test_a_program_of_its_own_copies_the_weights_it_is_given() -> None:
    start = {"w": numbers(7, 4, 3), "count": np.zeros((), np.float32)}
    compiler.compile(step(2), weights=start, cache=False)(numbers(8, 2, 4))
    assert start["count"] == 0


def test_a_program_whose_only_update_changes_nothing_reads_its_state() -> None:
    graph = parse(
        """graph g(%x: f32[2]) params(%p: f32[2], %q: f32[2]) {
          %y = add(%x, %q) : f32[2]
          %same = reshape(%p) shape=(2) : f32[2]
          update %p <- %same
          return %y
        }"""
    )
    state = State(graph.parameters)
    program = compiler.compile(graph, state=state, cache=False)
    for value in (1.0, 2.0):
        state.views["q"][:] = value
        np.testing.assert_array_equal(program(np.zeros(2, np.float32)), np.full(2, value, "f4"))


def test_a_state_of_another_layout_is_refused() -> None:
    parameters = step(2).parameters
    for wrong in (parameters[::-1], parameters[:1], (*parameters, NETWORK.parameters[0])):
        with pytest.raises((DataError, ShapeError), match="state"):
            compiler.compile(step(2), state=State(wrong), cache=False)


def test_an_update_that_changes_nothing_stands_beside_others() -> None:
    graph = parse("""graph g() params(%p: f32[3], %q: f32[3], %r: i32[2]) {
      %same = broadcast_to(%p) shape=(3) : f32[3]
      update %p <- %same
      update %q <- %p
      update %r <- %r
      return %same }""")
    weights: dict[str, np.ndarray] = {
        "p": np.arange(3, dtype="f4"), "q": np.zeros(3, "f4"), "r": np.arange(2, dtype="i4")
    }  # fmt: skip
    state = State(graph.parameters)
    state.load(weights)
    np.testing.assert_array_equal(compiler.compile(graph, state=state)(), weights["p"])
    expected = {**weights, "q": weights["p"]}
    for name, array in state.views.items():
        np.testing.assert_array_equal(array, expected[name])


def test_weights_of_a_program_with_updates_live_in_its_state() -> None:
    start = {"w": numbers(6, 4, 3), "count": np.zeros((), np.float32)}
    program = compiler.compile(step(2), weights=start, cache=False)
    with pytest.raises(DataError, match=r"program\.state"):
        program.set_weights(start)


# -- wrong use -----------------------------------------------------------------------------------

WRONG_INPUTS: list[tuple[list[Any], type[AdderGraphError], str]] = [
    ([], DataError, "takes 2 inputs .* found 0"),
    ([np.zeros((1, 5, 6, 3))], DataError, "found 1"),
    ([np.zeros((1, 5, 6, 4)), np.zeros(7)], ShapeError, "%x.*expected f32.N,5,6,3."),
    ([np.zeros((5, 6, 3)), np.zeros(7)], ShapeError, "%x"),
    ([np.zeros((1, 5, 6, 3)), np.zeros(8)], ShapeError, "%shift"),
    ([np.zeros((1, 5, 6, 3), complex), np.zeros(7)], DataError, "complex"),
    ([np.full((1, 5, 6, 3), "a"), np.zeros(7)], DataError, "%x"),
]


@pytest.mark.parametrize(("inputs", "error", "message"), WRONG_INPUTS)
def test_wrong_inputs(inputs: list[Any], error: type[AdderGraphError], message: str) -> None:
    program = compiler.compile(NETWORK, weights=weights())
    with pytest.raises(error, match=message):
        program(*inputs)


def test_a_bound_program_takes_its_batch_alone() -> None:
    program = compiler.compile(NETWORK, weights=weights(), batch=2)
    with pytest.raises(ShapeError, match="expected f32.2,5,6,3."):
        program(*samples(3))


def test_inputs_are_converted_and_may_be_anything_array_like() -> None:
    program = compiler.compile(NETWORK, weights=weights())
    x, shift = samples(2)
    expected = program.run([x, shift])
    wide = np.zeros((2, 5, 6, 6), np.float64)
    wide[..., ::2] = x
    for given in (x.astype("f8"), x.astype("i2"), x.tolist(), np.asfortranarray(x), wide[..., ::2]):
        require_same(program.run([given, shift]), expected)
    x.setflags(write=False)
    require_same(program.run([x, shift]), expected)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_program_goes_with_all_its_memory() -> None:
    script = """
from addergraph import compiler
from addergraph.codegen.run.jit import Program
from tests.codegen.test_jit import FEW, SMALL, rows
built = compiler.build(SMALL, FEW)
def action(number):
    program = Program(built, FEW, None, threads=2)
    program(*rows(3))
    if number % 2:
        program.close()
"""
    assert growth(script, times=1000) < 1024  # the heap itself grows by some 200 KB


def test_inputs_may_start_between_elements() -> None:
    """Emitted code gets aligned copies, also where the same shapes were seen before."""
    program = compiler.compile(NETWORK, weights=weights())
    x, shift = samples(2)
    expected = program.run([x, shift])
    moved = [np.frombuffer(b"." + a.tobytes(), a.dtype, offset=1) for a in (x, shift)]
    given = [a.reshape(b.shape) for a, b in zip(moved, (x, shift), strict=True)]
    _, arrays, _ = program._bound(given)
    assert all(a.flags.aligned for a in arrays) and not any(a.flags.aligned for a in given)
    require_same(program.run(given), expected)


def test_outputs_belong_to_the_caller() -> None:
    program = compiler.compile(NETWORK, weights=weights())
    first = program.run(samples(1))
    copy = [a.copy() for a in first]
    program.run(samples(1, seed=9))
    require_same(first, tuple(copy))


def test_missing_and_wrong_weights() -> None:
    with pytest.raises(DataError, match="f"):
        compiler.compile(NETWORK)
    with pytest.raises(DataError, match="g"):
        compiler.compile(NETWORK, weights={"f": weights()["f"]})
    with pytest.raises(ShapeError, match="%g"):
        compiler.compile(NETWORK, weights=weights() | {"g": numbers(1, 7, 8)})


def test_an_open_graph_that_mixes_samples_is_refused() -> None:
    graph = parse(
        """graph g(%x: f32[N,4]) {
          %m = reduce_max(%x) axes=(0) keepdims=true : f32[1,4]
          %y = sub(%x, %m) : f32[N,4]
          return %y
        }"""
    )
    with pytest.raises(ShapeError, match=r'reduce_max "m" mixes them.*batch=64'):
        compiler.compile(graph)
    np.testing.assert_array_equal(
        compiler.compile(graph, batch=2, cache=False)(np.eye(2, 4)), np.eye(2, 4) - [1, 1, 0, 0]
    )


def test_code_for_another_machine_is_not_run() -> None:
    foreign = next(n for n in TARGETS if not runnable(TARGETS[n]))
    with pytest.raises(TargetError, match="export it instead"):
        compiler.compile(NETWORK, weights=weights(), target=foreign)


@pytest.mark.slow
def test_the_process_survives_unknown_targets() -> None:
    """LLVM itself would end the process on an unknown CPU name."""
    script = (
        "import sys\nfrom addergraph import compiler\nfrom addergraph.errors import TargetError\n"
        "from addergraph.ir.text import parse\n"
        "graph = parse('graph g(%x: f32[2]) {\\n%y = relu(%x) : f32[2]\\nreturn %y\\n}')\n"
        "for name in ('znver33', 'x86-64-v9', '', 'native', 'x86_64-unknown-linux-gnu', '+avx'):\n"
        "    try:\n"
        "        compiler.compile(graph, target=name)\n"
        "    except TargetError as error:\n"
        "        print(error)\n"
        "print(compiler.compile(graph, cache=False)([-1, 2]))\n"
    )
    made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert made.returncode == 0 and not made.stderr
    lines = made.stdout.splitlines()
    assert len(lines) == 7 and lines[-1] == "[0. 2.]"
    assert 'unknown target or CPU "znver33" (did you mean "znver3"?)' in lines[0]
    assert all(line.startswith("unknown target or CPU") for line in lines[:-1])
