"""Help of the command line: every command and option, with examples that parse."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import addergraph as ag
from addergraph import zoo
from addergraph.cli import main as cli
from tests.addergraph.shell import Shell

ROOT = Path(__file__).parent.parent.parent
COMMANDS = (
    "train", "recipe", "evaluate", "predict", "clip", "quantize", "summary", "check", "diagnose",
    "plot", "import", "inspect", "compile", "export-onnx", "size", "certify", "run", "verify",
    "demo", "bench", "cache",
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("quick_objects")


def test_help_lists_the_commands_in_the_order_of_work(shell: Shell) -> None:
    out = shell.ok("--help")
    shown = out[out.index("Commands:") :].splitlines()[1 : 1 + len(COMMANDS)]
    listed = [line.split()[0] for line in shown]
    assert tuple(listed) == COMMANDS
    assert "..." not in out[out.index("Commands:") :]  # no description is cut off
    assert "Examples:" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example(shell: Shell, command: str) -> None:
    out = shell.ok(command, "-h")
    assert f"  addergraph {command} " in out[out.index("Example") :]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_option_says_what_it_does_and_what_happens_without_it(command: str) -> None:
    declared = cli.commands.commands[command]
    context = declared.make_context(command, [], resilient_parsing=True)
    options = [p for p in declared.get_params(context) if isinstance(p, click.Option)]
    for option in options:
        name, text = option.get_help_record(context) or ("", "")
        assert re.match(r"[A-Z]|(digits|cvpr2020|resnet20)[;,]", text), name
        assert option.is_flag or re.search(r"\[.*\b(default: |required)", text), (name, text)
        assert "default: its own" not in text and "None" not in text, name


def test_the_list_of_networks_fits_a_terminal(shell: Shell) -> None:
    lines = shell.ok("summary").splitlines()
    assert max(map(len, lines)) <= 80
    words = " ".join(" ".join(lines[2:]).split())  # folded, and complete
    assert len(zoo.NETWORKS) > 1 and all(one.description in words for one in zoo.NETWORKS.values())


def test_each_number_is_finite(shell: Shell) -> None:
    """NaN is within all limits for click, and `bench --seconds inf` never ended."""
    refused = 0
    for name, declared in cli.commands.commands.items():
        context = declared.make_context(name, [], resilient_parsing=True)
        for option in declared.get_params(context):
            if not isinstance(option.type, click.types.FloatParamType):
                continue
            for number in ("nan", "inf", "-inf"):
                assert f"'{option.opts[-1]}'" in shell(name, option.opts[-1], number).err
                refused += 1
    assert refused >= 3 * 6


def test_each_required_option_is_asked_for() -> None:
    asked = 0
    for name, declared in cli.commands.commands.items():
        required = [p for p in declared.params if isinstance(p, click.Option) and p.required]
        for missing in required:
            words = [word for p in required if p is not missing for word in (p.opts[-1], "a")]
            with pytest.raises(click.MissingParameter, match=f"parameter: {missing.name}$"):
                declared.make_context(name, ["a", *words])
            asked += 1
    assert asked > 4


def test_examples_of_the_help_parse(shell: Shell) -> None:
    """They name options that exist, so that all that can fail is a missing file."""
    for command in COMMANDS:
        out = shell.ok(command, "--help")
        for line in out[out.index("Example") :].splitlines()[1:]:
            words = line.split("|")[0].split(">")[0].split()
            words = words[words.index("addergraph") + 2 :]  # behind `mpirun -n 4`, too
            declared = cli.commands.commands[command]
            declared.make_context(command, words)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom addergraph.cli import main as cli\ntry:\n    cli.main(['--help'])\n"
        "except SystemExit:\n    print(*sorted({m.split('.')[0] for m in sys.modules}))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"llvmlite", "networkx", "rich", "safetensors", "filelock"}


def test_python_m_addergraph_is_the_command() -> None:
    command = [sys.executable, "-m", "addergraph", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"addergraph, version {ag.__version__}\n"
