"""Options and parameter types that several commands of `cli.py` take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

FAILED = 1  # the exit status of a command that found something


def example(*lines: str) -> str:
    """Examples for the end of a help text, kept as they are."""
    return "\b\n" + "\n".join(("Example:" if len(lines) == 1 else "Examples:", *lines))


weights = click.option(
    "--weights", metavar="W.npz", help="Numbers for the parameters of a .ag file, by name."
)
target = click.option(
    "--target",
    default="host",
    show_default=True,
    help="Machine to compile for: x86-64, x86-64-v3, x86-64-v4 or the name of an x86 CPU, "
    "aarch64-linux-gnu, riscv64-linux-gnu; without a multiplier riscv32i, riscv64i, thumbv6m.",
)


def waiting_threads(context: click.Context, option: click.Parameter, threads: Any) -> Any:
    """Warns of more threads than processors: an epoch on the digits takes 51 s with a thousand
    threads on one processor, 0.1 s with one.
    """
    if threads is None or threads <= 1:
        return threads
    from ..training.step import thread_count

    processors = thread_count(None)
    if threads > processors:
        there_are = f"{processors} processor{'' if processors == 1 else 's'}"
        click.echo(
            f"warning: --threads {threads}: this process may use {there_are}, and threads beyond "
            "that wait for one another, which is slow",
            err=True,
        )
    return threads


threads = click.option(
    "--threads", type=click.IntRange(1), callback=waiting_threads,
    help="Threads to use.  [default: all processors]",
)  # fmt: skip
one_thread = click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, callback=waiting_threads,
    help="Threads of a call.",
)  # fmt: skip


data = click.option(
    "--data", default="digits", show_default=True, metavar="NAME[:PATH]",
    help="digits, mnist:, fashion-mnist:, cifar10: or cifar100: with a path, or FILE.npz.",
)  # fmt: skip
normalize = click.option(
    "--normalize", type=click.Choice(["brightness", "statistics", "none"]), default="brightness",
    show_default=True, help="Pixels as 0..1, of mean 0 and deviation 1, or as stored.",
)  # fmt: skip


class Threads(click.ParamType):  # type: ignore[type-arg]  # of new versions only
    """A number of threads, or "all", which is 0."""

    name = "threads"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        return 0 if value == "all" else click.IntRange(1).convert(value, param, ctx)


batch = click.option(
    "--batch", type=click.IntRange(0), help="Bind the batch N.  [default: any number of samples]"
)


def ends(command: Callable[..., Any]) -> Callable[..., Any]:
    """The kinds of a built-in network's first and last layer."""
    kind = click.Choice(["adder", "conv"])
    last = click.option("--last", type=kind, help="The same for its last layer.")(command)
    return click.option(
        "--first", type=kind, help="Kind of a built-in network's first layer.  [default: its own]"
    )(last)
