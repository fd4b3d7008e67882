"""The C99 header of a library."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from string import Template

from addergraph.data.images import CROP, PAD, STRETCH
from addergraph.ir.plan import ALIGNMENT

from ..targets.target import Target
from .interface import ABI_VERSION, CODES, Argument, Image, Interface

_HEADER = Template("""\
/* $p.h: the graph "$graph", compiled by AdderGraph. For C99 and C++.
 *
 * A call computes $unit:
$tensors
 * Tensors are dense and row-major (images: height, width, channel). Booleans are bytes, 0 or 1.
 * Outputs may overlap neither inputs nor each other nor the arena.
 *
 * Memory. The caller brings an arena of ${M}_ARENA_BYTES bytes, aligned to ${M}_ARENA_ALIGN.
 * Nothing is allocated, no other library is called, and nothing is kept between calls, so calls in
 * different arenas may run at once. ${p}_run needs nothing in the arena and may overwrite all of it
 * but the first $align bytes. The last $scratch bytes serve ${p}_selftest alone.
 *
$threads
 *
$numbers$images
 *
$code
 */
#ifndef ${M}_H
#define ${M}_H

#include <stdint.h>

#define ${M}_ABI_VERSION $abi
#define ${M}_ARENA_BYTES ${arena}u
#define ${M}_ARENA_ALIGN ${align}u
#define ${M}_TARGET "$triple"
#define ${M}_CPU "$cpu"
#define ${M}_CPU_FEATURES $features
$stack

/* Elements of each tensor. */
$elements
$blocks
#ifdef __cplusplus
extern "C" {
#endif

/* What the functions return. */
enum {
$codes
};

/* Computes $unit. */
int32_t ${p}_run($run);

/* One thread's part of the same. */
int32_t ${p}_run_part($run_part);

$selftest */
int32_t ${p}_selftest(void * /* arena */);

/* $supported */
int32_t ${p}_supported(void);

/* What this library is, as JSON: tensors, target, versions and digests. */
const char *${p}_metadata_json(void);

#ifdef __cplusplus
}
#endif

#endif
""")

_SEVERAL_THREADS = Template("""\
 * Threads. ${p}_run_part splits one call over threads that the caller brings. Each of them calls it
 * with the same pointers and its own `thread`, from 0 to threads - 1; the results are those of
 * ${p}_run, bit for bit. The first $align bytes of the arena are their barrier: zeros before the
 * first call, and left as they are between calls.\
""")
_RELAXES = """
 * At byte 8 of it may stand the pointer of a function void (*)(void), sched_yield for example,
 * which a thread that waits for long then calls."""
_ONE_THREAD = Template("""\
 * Threads. The code has no atomic instructions, so one thread alone computes a call:
 * ${p}_run_part takes thread 0 of 1.""")

_ASKS = Template("""\
1 if this CPU and its system have what ${M}_CPU_FEATURES lists, else 0: the other functions
 * but ${p}_selftest, which asks this first, would end the program by an illegal instruction.
 * Every x86-64 CPU can answer, and Linux on every AArch64 (since 4.11).""")
_ASKS_LEVEL = Template("""\
1: every CPU of this kind runs the code. The first call of ${p}_run, ${p}_run_part or
 * ${p}_selftest asks the CPU which of $levels it has, and keeps the answer in the library's only
 * variable: one word, written atomically.""")
_ASKS_NOTHING = Template("""\
1: the code needs nothing that CPUs of this kind may lack. No question is asked of the CPU.""")
_SELFTEST = Template(
    "/* ${M}_OK if this CPU is supported, the weights are intact, and built-in inputs give "
    "built-in outputs, $how."
)
_EXACT = "to the bit"
_NEAR = (
    "each element within what rounding explains: the code was written on a machine that could not "
    "run it"
)

_FLOATS = """\
 * Numbers. NaN and infinities are values, not errors. An adder layer passes NaN on, and gives
 * -infinity (or NaN) for an infinite input; comparisons with NaN are false. The bits of the outputs
 * hold for rounding to nearest with subnormal numbers kept: flush-to-zero and denormals-are-zero,
 * which are modes of the calling thread, change them."""
_INTEGERS = """\
 * Numbers. All of them are integers: any input is valid, and the outputs have the same bits on
 * every machine."""
_MEANING = """\
/* Quantized tensors: value = SCALE * (q - ZERO_POINT). An input is made of real numbers by
 * dividing by SCALE, rounding to nearest, adding ZERO_POINT, and clipping. */"""
_MEANING_OF_IMAGES = """\
/* Quantized tensors: value = SCALE * (q - ZERO_POINT). An image needs none of it: its bytes are the
 * input. */"""
_STABLE = "/* The same by names that do not depend on the names of the tensors. */"
_IMAGES = Template("""
 *
 * Images. $x holds $count: $height rows of $width pixels of $channels, top left first.
 * Rows, pixels and channels follow each other without gaps.
 * $order$resize
 * What training did to pixels (scale, mean, deviation) is a part of the network: give them as they
 * are.""")
_RESIZED = Template("""
 * Images of another size came to this one for training; bring them to it in the same way:
 * $way.""")
_SCORES = Template("""
 * $y has one score for each class; the largest is the answer.""")
_ORDERS = {
    "grey": "The channel of a pixel is its grey level.",
    "rgb": "The channels of a pixel are red, green, blue, in this order.",
    "bgr": "The channels of a pixel are blue, green, red, in this order.",
    "other": "What the channels are was not declared.",
}
_WAYS = {
    STRETCH: "height and width are scaled, each by its own factor",
    CROP: "the largest part in the middle that has this shape is scaled",
    PAD: "the whole is scaled to fit, in the middle of black",
}
_CLASSES = Template("""\
/* The names of the classes in the order of the scores, as UTF-8:
 *     const char *const names[] = ${M}_CLASSES;
 * A macro: an array would take memory in each file that includes this, or draw a warning there that
 * nobody uses it. */
#define ${M}_CLASS_COUNT $count
#define ${M}_CLASSES { \\
$names
}""")


def header(interface: Interface, *, exact: bool, stack: int | None = None) -> str:
    """The text of `<prefix>.h`.

    exact   whether the self-test expects the same bits, or outputs that rounding explains
    stack   the bytes that a call takes of it at most, where they are known
    """
    prefix, macro, arguments = interface.prefix, interface.macro, interface.arguments
    # In comments, where no macro of the program that includes this is replaced.
    parameters = [
        f"{'const ' if a in interface.inputs else ''}{a.c_type} * /* {a.c_name} */"
        for a in arguments
    ]
    arena = "void * /* arena */"
    last = max(CODES)
    codes = [
        f"    {macro}_{name} = {code}{'' if code == last else ','} /* {meaning} */"
        for code, (name, meaning) in CODES.items()
    ]
    threads = _SEVERAL_THREADS if interface.threaded else _ONE_THREAD
    relaxes = _RELAXES if interface.relaxes else ""
    return _HEADER.substitute(
        p=prefix,
        M=macro,
        graph=plain_ascii(interface.graph),
        unit="one sample" if interface.batched else "the whole graph",
        tensors="\n".join(map(_described, arguments)) or " *   (no tensors)",
        scratch=interface.golden_bytes,
        align=ALIGNMENT,
        abi=ABI_VERSION,
        arena=interface.arena_bytes,
        stack=_stack(interface, stack),
        elements="\n".join(
            f"#define {interface.elements(a)} {a.type.elements}u" for a in arguments
        ),
        blocks="".join(f"\n{block}\n" for block in _blocks(interface)),
        images=""
        if interface.image is None
        else images_text(interface.image, interface.inputs, interface.outputs, interface.classes),
        numbers=_FLOATS if interface.floats else _INTEGERS,
        codes="\n".join(codes),
        run=", ".join([*parameters, arena]),
        run_part=", ".join([*parameters, arena, "int32_t /* thread */", "int32_t /* threads */"]),
        selftest=filled(_SELFTEST.substitute(M=macro, how=_EXACT if exact else _NEAR)),
        **code_of(prefix, macro, interface.target),
        threads=threads.substitute(p=prefix, align=ALIGNMENT) + relaxes,
    )


def code_of(prefix: str, macro: str, target: Target) -> dict[str, str]:
    """What a header says of the target."""
    asks = _ASKS if target.needs else _ASKS_LEVEL if target.above else _ASKS_NOTHING
    levels = ", ".join(level.name for level in (target, *target.above))
    needs = " ".join(name for name, _, _ in target.needs) or target.features
    lines = [f'"{line}"' for line in textwrap.wrap(needs, 90, drop_whitespace=False)] or ['""']
    return {
        "code": filled(f" * Code. It runs on {target.cpus}."),
        "supported": asks.substitute(p=prefix, M=macro, levels=levels),
        "triple": target.triple,
        "cpu": target.cpu,
        "features": "\\\n    " * (len(lines) > 1) + " \\\n    ".join(lines),
    }


def filled(comment: str) -> str:
    """The lines of a comment, without its end."""
    return textwrap.fill(comment, 100, subsequent_indent=" * ")


def _stack(interface: Interface, stack: int | None) -> str:
    if stack is None:
        return "/* How much stack a call takes is not known. */"
    beside = ", beside the function that a waiting thread calls" if interface.threaded else ""
    return (
        f"/* The most that a call takes of the stack{beside}. */\n"
        f"#define {interface.macro}_STACK_BYTES {stack}u"
    )


def _blocks(interface: Interface) -> Iterator[str]:
    """What follows the numbers of elements, where it is known."""
    macro, image = interface.macro, interface.image
    if known := [line for a in interface.arguments for line in interface.meaning(a)]:
        bytes_ = image is not None and image.dtype == "u8"
        yield _defines(_MEANING_OF_IMAGES if bytes_ else _MEANING, known)
    if interface.aliases:
        yield _defines(_STABLE, interface.aliases)
    yield from blocks_of_images(macro, image, interface.classes)


def blocks_of_images(macro: str, image: Image | None, classes: Sequence[str]) -> Iterator[str]:
    """Macros of an image, and of the names of the classes, where these are known."""
    if image is not None:
        numbers = {"HEIGHT": image.height, "WIDTH": image.width, "CHANNELS": image.channels}
        lines = [(f"{macro}_IMAGE_{what}", str(number)) for what, number in numbers.items()]
        lines.append((f"{macro}_IMAGE_FORMAT", f'"{image.format}"'))
        if image.resize is not None:
            lines.append((f"{macro}_IMAGE_RESIZE", f'"{image.resize}"'))
        yield _defines("/* An image. */", lines)
    if classes:
        last = len(classes) - 1
        names = "\n".join(
            f"    {c_string(name)}{',' * (n < last)} /* {n} */ \\" for n, name in enumerate(classes)
        )
        yield _CLASSES.substitute(M=macro, count=len(classes), names=names)


def _defines(comment: str, lines: Iterable[tuple[str, str]]) -> str:
    return "\n".join([comment, *(f"#define {name} {value}" for name, value in lines)])


def images_text(
    image: Image, inputs: Sequence[Argument], outputs: Sequence[Argument], classes: Sequence[str]
) -> str:
    """The section on images: what a call reads."""
    x = next(a for a in inputs if image.input in (None, a.name))
    count = x.type.elements // image.elements
    unit = "byte" if image.dtype == "u8" else "float"
    text = _IMAGES.substitute(
        x=x.c_name,
        count="one image" if count == 1 else f"{count} images, one after another, each",
        height=image.height,
        width=image.width,
        channels=f"{image.channels} {unit}{'s' * (image.channels > 1)}",
        order=_ORDERS[image.order],
        resize="" if image.resize is None else _RESIZED.substitute(way=_WAYS[image.resize]),
    )
    return text + _SCORES.substitute(y=outputs[0].c_name) * bool(classes)


def c_string(text: str) -> str:
    """`text` as a literal of C and C++, in ASCII: octal escapes end after three digits, whatever
    follows, and an escaped question mark begins no trigraph."""
    plain = {ord('"'): r"\"", ord("\\"): r"\\", ord("?"): r"\?", ord("\n"): r"\n"}
    escaped = (
        plain.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}")
        for byte in text.encode("utf-8", "backslashreplace")
    )
    return f'"{"".join(escaped)}"'


def _described(argument: Argument) -> str:
    return plain_ascii(f" *   {argument.c_name}: {argument.type}")


def plain_ascii(text: str) -> str:
    """`text` for a C file: names may have letters that C99 source need not know."""
    return text.encode("ascii", "backslashreplace").decode()
