"""Commands whose options are the settings of a dataclass (`settings.py`)."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any, get_type_hints

import click

from ..errors import UnsupportedError
from ..settings import NOTHING, Setting, defaults_of, like, setting, settings_of

AS_DECLARED = "the kind it is declared with"
FAILED = 1  # the exit status of a command that found something


def examples(*lines: str) -> str:
    """For the end of a help text, kept as they are."""
    head = "Example:" if len(lines) == 1 else "Examples:"
    return "\b\n" + "\n".join([head, *(f"  {line}" for line in lines)])


class Command(click.Command):
    """A command that calls a function of `commands/`, imported on use, with its one argument, a
    dataclass, made of the command line. What is false makes the exit status FAILED.

    shares  whether the processes that `mpirun` starts share the work; other commands are refused
            there, since each process would do all of it and write the same files
    """

    def __init__(self, name: str, run: str, help: str, *lines: str, shares: bool = False) -> None:
        text = inspect.cleandoc(help)
        super().__init__(name, callback=self._call, help=text, epilog=examples(*lines))
        self._module, _, self._function = run.rpartition(".")
        self._shares = shares

    @property
    def _run(self) -> Callable[[Any], object]:
        module = importlib.import_module(f".{self._module}", __package__)
        found: Callable[[Any], object] = getattr(module, self._function)
        return found

    @functools.cached_property
    def _kind(self) -> type:
        kind: type = get_type_hints(self._run)["options"]
        return kind

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        self.params = self.params or list(_parameters(self._kind))
        return super().get_params(ctx)

    def _call(self, **given: Any) -> int:
        from ..training import launched  # not before a command runs: help is to be quick

        if not self._shares and (count := launched.processes()) > 1:
            # One says so. The others end well: a failure of theirs could end it before it does.
            if launched.rank():
                return 0
            raise UnsupportedError(
                f"mpirun started {count} processes, and {self.name} is work for one: run it "
                "without mpirun (train alone shares its work)"
            )
        return FAILED if self._run(_filled(self._kind, given)) is False else 0


@dataclass(frozen=True)
class _Group:
    """Settings of another dataclass among those of a command, as one field: a dict of what was
    given for each by name. See `group`."""

    kind: type
    without: Collection[str]
    unset: str
    help: Mapping[str, str]

    def settings(self) -> Iterator[tuple[str, Setting, Any]]:
        """Name, setting and default of each."""
        defaults = defaults_of(self.kind)
        for name, one in settings_of(self.kind).items():
            if name in self.without:
                continue
            if name in self.help:
                one = dataclasses.replace(one, help=self.help[name], unset="")
            if self.unset:
                yield name, dataclasses.replace(one, unset=self.unset), None
            else:
                yield name, one, defaults[name]


def group(
    kind: type,
    without: Collection[str] = (),
    unset: str = "",
    help: Mapping[str, str] | None = None,
) -> Any:
    """The settings of `kind`, but for those in `without`, as options of a command.

    unset  what an option that is not given means, where that is not the setting's default:
           the option is then None
    help   other help texts, by setting
    """
    return field(metadata={"group": _Group(kind, without, unset, help or {})})


def _parameters(kind: type) -> Iterator[click.Parameter]:
    defaults = defaults_of(kind)
    for f in dataclasses.fields(kind):
        if "group" in f.metadata:
            yield from (_parameter(*one) for one in f.metadata["group"].settings())
        else:
            yield _parameter(f.name, f.metadata["setting"], defaults[f.name])


def _filled(kind: type, given: Mapping[str, Any]) -> Any:
    values = {}
    for f in dataclasses.fields(kind):
        grouped = f.metadata.get("group")
        names = None if grouped is None else [name for name, _, _ in grouped.settings()]
        values[f.name] = given[f.name] if names is None else {name: given[name] for name in names}
    return kind(**values)


def _parameter(name: str, one: Setting, default: Any) -> click.Parameter:
    required = default is MISSING
    if one.place:
        return click.Argument(
            [name], required=required, nargs=-1 if one.many else 1, metavar=one.metavar
        )
    flag = f"--{(one.name or name).replace('_', '-')}"
    if one.kind is bool and default is not False:
        flag = f"{flag}/--no-{flag[2:]}"
    unsaid = default in (None, ())
    shown = not required and not unsaid and default is not False
    return click.Option(
        [*filter(None, [one.short]), flag, name],
        type=None if one.kind is bool else _type(one),
        is_flag=one.kind is bool,
        multiple=one.many,
        required=required,
        # A default of None counts as one that was given, from click 8.3 on.
        **({} if required else {"default": default}),
        **({} if one.alone is None else {"flag_value": one.alone}),
        show_default=shown,
        metavar=one.metavar,
        help=one.help + (f"  [default: {one.unset}]" if unsaid and one.unset else ""),
        callback=waiting_threads if name == "threads" else None,
    )


def _type(one: Setting) -> click.ParamType:  # type: ignore[type-arg]  # of new versions only
    if issubclass(one.kind, click.ParamType):
        return one.kind()
    if one.choices:
        return click.Choice(one.choices)
    if one.kind is int and (one.least, one.most) != (None, None):
        return click.IntRange(one.least, one.most)  # type: ignore[arg-type]
    if one.kind is not float:
        return click.types.convert_type(one.kind)
    least, most = (
        a if b is None else b for a, b in ((one.least, one.above), (one.most, one.below))
    )
    if least is None and most is None:
        return _Finite()  # of a range without limits click's help says "x<=None"
    return _Real(least, most, min_open=one.above is not None, max_open=one.below is not None)


class _Finite(click.types.FloatParamType):
    """A number; no option means infinity or NaN."""

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is no finite number.", param, ctx)
        return number


class _Real(_Finite, click.FloatRange):
    """A number within limits. NaN is within all of them for click."""


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


class Threads(click.ParamType):  # type: ignore[type-arg]  # of new versions only
    """A number of threads, or "all", which is 0."""

    name = "threads"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        return 0 if value == "all" else click.IntRange(1).convert(value, param, ctx)


# --- what several commands take -------------------------------------------------------------------


def file(metavar: str | None = None) -> Any:
    """An argument: a model, a graph or the name of a network."""
    return setting(MISSING, place=True, metavar=metavar)


def weights() -> Any:
    help, unset = "Weights for the parameters of a .ag file, by name.", "those in the model file"
    return setting(None, help, metavar="W.npz", unset=unset)


def calibration(purpose: str) -> Any:
    """`--data` of commands that run a network on samples to see what its values are."""
    return setting(
        NOTHING,
        f"Samples to {purpose} on: the training images of this, as for train; or FILE.npz with an "
        "array x and no labels, taken as it is.",
        metavar="NAME[:PATH]",
    )


def samples(count: int) -> Any:
    """How many of these; `Dataset.calibration` says which."""
    return setting(
        count,
        "How many of them, from the start; evenly spaced where they are in the order of classes.",
        least=1,
    )


def model_output() -> Any:
    return setting(NOTHING, "The model file to write.", short="-o", metavar="FILE.safetensors")


def data() -> Any:
    known = (
        "digits; mnist:, fashion-mnist:, cifar10: or cifar100: with a path; FILE.npz; folder:PATH "
        "with a folder of images for each class, and options as folder:PATH?size=32x32,how=crop "
        "(how: stretch, crop or pad; channels=1 or 3; broken=skip)."
    )
    return setting("digits", known, metavar="NAME[:PATH]")


def target() -> Any:
    known = (
        "Machine to compile for: x86-64, x86-64-v3, x86-64-v4, x86-64-every (code of all three, "
        "which the CPU chooses), aarch64-linux-gnu, aarch64-linux-gnu-dotprod or the name of such "
        "a CPU, aarch64-linux-android, aarch64-linux-android-dotprod, armv7-linux-gnueabihf, "
        "riscv64-linux-gnu, riscv64-linux-gnu-v (with vectors), wasm32; for Windows "
        "x86-64-windows, x86-64-v3-windows, x86-64-v4-windows, x86-64-every-windows, for Macs "
        "arm64-macos; of boards thumbv7em, thumbv7em-f32, thumbv8m-mve or the name of a Cortex-M, "
        "riscv32imc; without a multiplier riscv32i, riscv64i, thumbv6m."
    )
    return setting("host", known)


def batch(help: str, unset: str, least: int = 0) -> Any:
    return setting(None, help, kind=int, least=least, unset=unset)


def engine() -> Any:
    from ..training.settings import Fit

    return like(Fit, "engine", help="Compiled code, or NumPy (slow).")


def one_thread() -> Any:
    return setting(1, "Threads of a call.", least=1)


def first() -> Any:
    help = "Another kind for the first layer of a built-in network."
    return setting(None, help, choices=("adder", "conv"), unset=AS_DECLARED)


def last() -> Any:
    help = "Another kind for the last layer of a built-in network."
    return setting(None, help, choices=("adder", "conv"), unset=AS_DECLARED)


def board(does: str) -> Any:
    known = f"{does}: microbit, rp2040, nrf52840, stm32f746, stm32f767 or esp32-c3."
    return setting(None, known, metavar="NAME", unset="no board")


def flash() -> Any:
    return setting(
        None, "Flash that there is.", kind=int, least=1, metavar="BYTES", unset="the board's"
    )


def ram() -> Any:
    return setting(
        None, "RAM that there is.", kind=int, least=1, metavar="BYTES", unset="the board's"
    )
