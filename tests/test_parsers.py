"""Parsers of files from outside keep their promises on the inputs that a fuzzer found worth keeping
(`make campaign-parsers` looks for more); and a parser that does not keep them is noticed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from addergraph.errors import DataError
from tests.damage import within
from tests.parsers import __main__ as campaign
from tests.parsers import corpus, mutate, targets
from tests.parsers.targets import BrokenPromise, Target, examine

ALWAYS_REFUSED = {"metadata", "state"}  # for want of a library, and of a whole network's weights


@pytest.mark.parametrize("name", campaign.NAMES)
def test_what_a_fuzzer_found_is_accepted_or_refused(name: str, tmp_path: Path) -> None:
    target, inputs = targets.TARGETS[name], corpus.kept(name)
    accepted = sum(examine(target, data, tmp_path) for data in inputs.values())
    assert accepted < len(inputs) and bool(accepted) == (name not in ALWAYS_REFUSED)
    with within(targets.NBYTES, 10 * targets.SECONDS):
        examine(target, max(inputs.values(), key=len), tmp_path)


def test_every_parser_is_in_the_campaign_and_its_inputs_are_few() -> None:
    files = list(corpus.FOLDER.iterdir())
    assert set(campaign.NAMES) == set(targets.TARGETS) == {path.stem for path in files}
    assert sum(path.stat().st_size for path in files) < 150_000


def _slow(data: bytes, folder: Path) -> None:
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass


def _foreign(data: bytes, folder: Path) -> None:
    raise KeyError(data)


def _unprintable(data: bytes, folder: Path) -> None:
    raise DataError("\udc80")


@pytest.mark.parametrize(
    ("read", "error", "said"),
    [
        (_slow, BrokenPromise, r"0\.\d s for 3 bytes"), (_foreign, KeyError, "abc"),
        (_unprintable, BrokenPromise, "cannot be printed"),
    ],
)  # fmt: skip
def test_a_broken_promise_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: object, error: type[Exception], said: str
) -> None:
    monkeypatch.setattr(targets, "SECONDS", 0.04)
    with pytest.raises(error, match=said):
        examine(Target("broken", read), b"abc", tmp_path)  # type: ignore[arg-type]


def test_of_inputs_that_take_the_same_way_the_smallest_stays(tmp_path: Path) -> None:
    recipe, target = corpus.kept("recipe"), targets.TARGETS["recipe"]
    whole = next(d for d in recipe.values() if examine(target, d, tmp_path))
    inputs = [b"# abc\n" + whole, whole, b"=", b"=="]
    few = corpus.minimised(inputs, lambda data: examine(target, data, tmp_path), 10_000)
    assert few == [b"=", whole]
    assert corpus.minimised(inputs, lambda data: examine(target, data, tmp_path), 1) == [b"="]


def test_a_finding_is_kept_once_by_its_place(tmp_path: Path) -> None:
    for data in (b"abc", b"ab", b"abcd"):
        with pytest.raises(KeyError) as caught:
            _foreign(data, tmp_path)
        campaign._keep(tmp_path, data, caught.value)
    (found,) = tmp_path.glob("*.input")
    assert (
        found.read_bytes() == b"ab" and "KeyError: b'ab'" in found.with_suffix(".txt").read_text()
    )


def test_words_take_the_place_of_words() -> None:
    text = b"graph g(%x: f32[N,2]) {\n  return %x\n}"
    made = [mutate.mutated(text, seed, [b"params"]) for seed in range(200)]
    assert made == [mutate.mutated(text, seed, [b"params"]) for seed in range(200)]
    assert len(set(made)) > 100
    assert text.replace(b"return", b"params") in made
    assert text.replace(b"N,2", b"N,18446744073709551616") in made
    assert mutate.mutated(b"", 3, []) == b""


def test_without_atheris_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "atheris", None)
    for name, said in (("idx", "pip install -e '.[fuzz]'"), ("x", "no parser is called x")):
        monkeypatch.setattr(sys, "argv", ["parsers", name])
        with pytest.raises(SystemExit) as end:
            campaign.main()
        assert end.value.code == 2 and said in capsys.readouterr().err
