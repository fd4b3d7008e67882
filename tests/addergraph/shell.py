"""The command line as tests use it; `conftest.py` has the fixture."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from addergraph.cli import main as cli


class Done(NamedTuple):
    status: int
    out: str
    err: str


class Shell:
    """Runs the command line in this process, in a folder of its own."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object) -> Done:
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main([str(a) for a in arguments])
        out, err = self.capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Done(end.value.code, out, err)

    def ok(self, *arguments: object) -> str:
        done = self(*arguments)
        assert done.status == 0, done.err
        return done.out

    def error(self, *arguments: object) -> str:
        """What stderr says of an error of our own: nothing but the message."""
        done = self(*arguments)
        assert done.status == 2, done
        assert done.err.startswith("error: ")
        assert "Traceback" not in done.err
        return done.err.removeprefix("error: ").rstrip("\n")
