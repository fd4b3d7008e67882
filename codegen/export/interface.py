"""What an exported library calls things: C names, sizes and codes, as plain data.

Everything that speaks of the C interface reads this: the emitted entry points, the header, the
example program and the metadata.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from addergraph.data import Preprocessing
from addergraph.data.preprocessing import image_input
from addergraph.errors import UnsupportedError
from addergraph.ir import Graph, Value
from addergraph.ir.plan import ALIGNMENT, align
from addergraph.ir.quantization import Quantization, value_quantizations
from addergraph.ir.types import TensorType

from ..emit.lowered import Lowered
from ..inspect.limits import floats_of
from ..targets.target import Target

ABI_VERSION = 1
OK, NULL_POINTER, MISALIGNED_ARENA, BAD_THREAD, DAMAGED_WEIGHTS, WRONG_BITS = range(6)
WRONG_CPU = 7  # 6 was "no golden outputs"
CODES: dict[int, tuple[str, str]] = {
    OK: ("OK", "success"),
    NULL_POINTER: ("ERROR_NULL", "a pointer is NULL"),
    MISALIGNED_ARENA: ("ERROR_ARENA", f"the arena is not aligned to {ALIGNMENT} bytes"),
    BAD_THREAD: ("ERROR_THREAD", "not 0 <= thread < threads"),
    DAMAGED_WEIGHTS: ("ERROR_WEIGHTS", "selftest: the weights differ from their checksum"),
    WRONG_BITS: ("ERROR_BITS", "selftest: the outputs differ from the golden ones"),
    WRONG_CPU: ("ERROR_CPU", "selftest: this CPU has not all instructions that the code uses"),
}
STABLE = ("INPUT", "OUTPUT")  # in macros of libraries that have one of each
LONGEST_NAME = 4095  # bytes of a string literal that C99 compilers need to take
C_TYPES = {"f32": "float", "i32": "int32_t", "u8": "uint8_t", "i8": "int8_t", "bool": "uint8_t"}

# Words of C99 and C++23, names that <stdint.h> defines, and names that compilers or the usual
# headers define as macros: callers may want to call their variables as the tensors are called.
_WORDS = """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t
    char32_t class co_await co_return co_yield compl concept const const_cast consteval constexpr
    constinit continue decltype default delete do double dynamic_cast else enum explicit export
    extern false float for friend goto if inline int long mutable namespace new noexcept not not_eq
    nullptr operator or or_eq private protected public register reinterpret_cast requires restrict
    return short signed sizeof static static_assert static_cast struct switch template this
    thread_local throw true try typedef typeid typename union unsigned using virtual void volatile
    wchar_t while xor xor_eq int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t
    assert complex errno imaginary linux main unix NULL EOF I stdin stdout stderr
"""
RESERVED_WORDS = frozenset(_WORDS.split())
# What a file or library of ours must not be called, since `-I` and `-L` would put it before the
# system's own: headers of C, POSIX, glibc, newlib and the compilers, as other headers include them;
# libraries that every program is linked with; devices of Windows, which are no file names there.
# With the last line a code like R_OK would be that of <unistd.h>.
_SYSTEM = """
    aio aliases alloca ar argp argz arm_acle arm_neon assert byteswap complex cpio cpuid crypt ctype
    dirent dlfcn elf endian envlock envz err errno error execinfo fastmath fcntl features fenv float
    fmtmsg fnmatch fpu_control fstab fts ftw gconv gcov getopt glob grp gshadow iconv ieeefp ifaddrs
    immintrin inttypes io iso646 langinfo lastlog libgen libintl limits link locale malloc math
    mcheck memory mntent monetary mqueue netdb newlib nl_types nss obstack paths poll printf
    proc_service process pthread pty pwd re_comp reent regex regexp resolv sched search semaphore
    setjmp sgtty shadow signal spawn stab stdalign stdarg stdatomic stdbool stdckdint stddef stdfix
    stdint stdio stdio_ext stdlib stdnoreturn string strings syscall sysexits syslog tar termio
    termios tgmath thread_db threads time ttyent uchar ucontext ulimit unctrl unistd unwind utime
    utmp utmpx values varargs wait wchar wctype windows wordexp x86intrin
    anl atomic c c_nano dl g g_nano gcc gcc_eh gcc_s gloss gomp m mvec nosys nsl quadmath rt
    semihost ssp util
    aux con nul prn
    f r w x
"""
SYSTEM_NAMES = frozenset(_SYSTEM.split())


@dataclass(frozen=True)
class Argument:
    """One input or output tensor of a call.

    name     in the graph
    c_name   in the C interface
    source   its type in the graph, whose batch may be open
    type     what one call reads or writes
    meaning  its scale and zero point, where they are known
    """

    name: str
    c_name: str
    source: TensorType
    type: TensorType
    meaning: Quantization | None

    @property
    def c_type(self) -> str:
        return C_TYPES[self.type.dtype.name]


@dataclass(frozen=True)
class Image:
    """What one image of the input is: rows of pixels of channels, dense.

    dtype   of a channel, "u8" or "f32"
    order   of the channels: "grey", "rgb", "bgr", or "other" where nobody said
    resize  how training brought images of another size to this one; None where nobody said
    input   which one has it, where there are several
    """

    dtype: str
    height: int
    width: int
    channels: int
    order: str
    resize: str | None = None
    input: str | None = None

    @property
    def elements(self) -> int:
        return self.height * self.width * self.channels

    @property
    def format(self) -> str:
        """The usual name of such pixels."""
        if self.order == "other":
            return f"{self.dtype.upper()}X{self.channels}"
        bits = "F32" if self.dtype == "f32" else "8" * self.channels
        return self.order.upper() + bits


class Linkable(Protocol):
    """What linking asks of the interface of a library.

    functions  what a module of WebAssembly shows
    buffers    the memory that such a module has for calls: symbol -> bytes; it shows these, too
    """

    @property
    def prefix(self) -> str: ...

    @property
    def target(self) -> Target: ...

    @property
    def functions(self) -> tuple[str, ...]: ...

    @property
    def buffers(self) -> dict[str, int]: ...


class Described(Linkable, Protocol):
    """What metadata.json and scripts ask of it."""

    @property
    def graph(self) -> str: ...

    @property
    def outputs(self) -> tuple[Argument, ...]: ...

    @property
    def arena_bytes(self) -> int: ...

    @property
    def image(self) -> Image | None: ...

    @property
    def classes(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Interface:
    """The C interface of one exported graph.

    prefix      of every symbol and file name; in capitals of every macro
    run_bytes   what a run needs of the arena; the golden test's outputs stand behind them
    batched     whether a call computes one sample of an open batch
    threaded    whether several threads may share a call
    relaxes     whether a thread that waits for long calls what the arena names
    floats      whether it computes with f32 anywhere
    target      what its code is for
    image       what the input is, where the network says that it takes images
    classes     their names, in the order of the scores, where it says them
    """

    prefix: str
    graph: str
    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    run_bytes: int
    batched: bool
    threaded: bool
    relaxes: bool
    floats: bool
    target: Target
    image: Image | None = None
    classes: tuple[str, ...] = ()

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return self.inputs + self.outputs

    @property
    def macro(self) -> str:
        return self.prefix.upper()

    @property
    def golden_bytes(self) -> int:
        """Bytes of one set of outputs, each aligned."""
        return sum(align(a.type.nbytes) for a in self.outputs)

    @property
    def arena_bytes(self) -> int:
        return self.run_bytes + self.golden_bytes

    @property
    def functions(self) -> tuple[str, ...]:
        """See `Linkable`."""
        return tuple(f"{self.prefix}_{name}" for name in ("run", "selftest", "metadata_json"))

    @property
    def buffers(self) -> dict[str, int]:
        """See `Linkable`."""
        sizes = {f"{self.prefix}_arena": self.arena_bytes}
        for kind, arguments in (("input", self.inputs), ("output", self.outputs)):
            sizes |= {f"{self.prefix}_{kind}_{i}": a.type.nbytes for i, a in enumerate(arguments)}
        return sizes

    def elements(self, argument: Argument) -> str:
        """The macro with the number of elements of a call's `argument`."""
        return f"{self.macro}_{argument.c_name.upper()}_ELEMENTS"

    def meaning(self, argument: Argument) -> tuple[tuple[str, str], ...]:
        """The macros of the scale and zero point of `argument`, and their values."""
        if argument.meaning is None:
            return ()
        start = f"{self.macro}_{argument.c_name.upper()}"
        known = argument.meaning
        return (f"{start}_SCALE", repr(known.scale)), (f"{start}_ZERO_POINT", str(known.zero_point))

    @property
    def aliases(self) -> tuple[tuple[str, str], ...]:
        """With one input and one output: their macros by names that no tensor's name changes, and
        those that these stand for."""
        if not self.is_simple:
            return ()
        return tuple(
            (f"{self.macro}_{stable}_{what}", f"{self.macro}_{own}_{what}")
            for argument, stable in zip(self.arguments, STABLE, strict=True)
            if (own := argument.c_name.upper()) != stable
            for what in ("ELEMENTS", *(("SCALE", "ZERO_POINT") if argument.meaning else ()))
        )

    @property
    def is_simple(self) -> bool:
        """Whether there is one input and one output."""
        return len(self.inputs) == len(self.outputs) == 1


def interface_of(
    lowered: Lowered,
    name: str | None = None,
    preprocessing: Preprocessing | None = None,
    above: Sequence[Lowered] = (),
) -> Interface:
    """The C interface of a lowered graph, called `name` or else as the graph is; `preprocessing`
    says what its images are, where that is known. `above`: the graph for higher levels of its
    target.

    Names become C identifiers: what is neither an ASCII letter, digit nor underscore becomes an
    underscore. Raises UnsupportedError when two names then coincide, and for names of classes that
    are not one for each score, or no strings of C.
    """
    main, source, target = lowered.main, lowered.declared, lowered.target
    prefix = prefix_of(name or source.name)
    ends = (*source.inputs, *source.outputs)
    names = _names(ends, (*main.inputs, *main.outputs))
    meanings = value_quantizations(source)
    made = tuple(
        Argument(n, identifier(n), v.type, v.type.bind(lowered.samples), meanings[v.name])
        for n, v in zip(names, ends, strict=True)
    )
    count = len(source.inputs)
    interface = Interface(
        prefix, source.name, made[:count], made[count:],
        max(f.arenas * f.arena_bytes for f in (lowered, *above)), lowered.is_open,
        target.atomics, target.atomics and target.multiplier, bool(floats_of(main)),
        target, *images_of(source, preprocessing),
    )  # fmt: skip
    _require_distinct(interface)
    return interface


def images_of(graph: Graph, known: Preprocessing | None) -> tuple[Image | None, tuple[str, ...]]:
    """What an image is, where an input takes them, and names of the classes, where there is one
    output that they can be of."""
    if known is None or not graph.outputs:
        return None, ()
    y, named = graph.outputs[0], known.classes if len(graph.outputs) == 1 else None
    classes, scores = named or (), (1, *y.type.bind(1).sizes)[-1]
    if classes and len(classes) != scores:
        raise UnsupportedError(
            f'graph "{graph.name}": the preprocessing names {len(classes)} classes, %{y.name} has '
            f"{scores} scores; declare Preprocessing(classes=...) with a name for each"
        )
    for number, name in enumerate(classes):
        if "\0" in name or len(name.encode("utf-8", "backslashreplace")) > LONGEST_NAME:
            raise UnsupportedError(
                f"the name of class {number} is no string for C compilers, which need at most "
                f"{LONGEST_NAME:,} bytes and no NUL in it; name it otherwise: {name[:40]!r}"
            )
    shapes = {v.name: v.type.shape[1:] for v in graph.inputs}
    taker = image_input(shapes, known.input if len(shapes) > 1 else None)
    x = next((v for v in graph.inputs if v.name == taker), None)
    if x is None or x.type.dtype.name != known.dtype or x.type.rank != 4:
        return None, classes  # also for integers of real pixels, and for vectors
    _, height, width, channels = x.type.bind(1).sizes
    order, resize = known.channels, known.resize
    image = Image(known.dtype, height, width, channels, order, resize)
    return replace(image, input=taker if len(shapes) > 1 else None), classes


def identifier(name: str) -> str:
    """`name` as a C identifier."""
    made = re.sub(r"[^A-Za-z0-9_]+", "_", name)
    if made in RESERVED_WORDS:
        return f"{made}_"
    # File-level names that start with an underscore belong to the compiler.
    return f"v{made}" if not made or made[0] in "0123456789_" else made


def prefix_of(name: str) -> str:
    """`name` as the start of symbols and file names."""
    made = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")
    if not made or made[0].isdigit() or made.lower() in SYSTEM_NAMES:
        return f"net_{made}".rstrip("_")
    return made


def _names(source: Sequence[Value], main: Sequence[Value]) -> list[str]:
    """The source graph's names; an output returned twice has a name of its own only in `main`."""
    names: list[str] = []
    for s, m in zip(source, main, strict=True):
        names.append(m.name if s.name in names else s.name)
    return names


def _require_distinct(interface: Interface) -> None:
    taken: dict[str, str] = {}
    for argument in interface.arguments:
        # Their macros are in capitals, so names that differ in case alone coincide as well.
        made = argument.c_name.lower()
        if made in taken:
            raise UnsupportedError(
                f'graph "{interface.graph}": %{argument.name} would be called '
                f'"{argument.c_name}" in C, which clashes with %{taken[made]}; '
                "rename one of them before you export"
            )
        taken[made] = argument.name
    for argument, other in zip(interface.arguments, reversed(STABLE), strict=False):
        if interface.is_simple and argument.c_name.upper() == other:
            raise UnsupportedError(
                f'graph "{interface.graph}": in C {interface.elements(argument)}, of '
                f"%{argument.name}, would be that of the {other.lower()}; "
                "rename it before you export"
            )
