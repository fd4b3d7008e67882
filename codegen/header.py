"""The text that goes out with a library: the C99 header, the example program and its Makefile."""

from __future__ import annotations

from addergraph.plan import ALIGNMENT

from .interface import ABI_VERSION, CODES, Argument, Interface

_HEADER = """\
/* {prefix}.h: the graph "{graph}", compiled by AdderGraph. C99 and C++.
 *
 * One call computes {unit}:
{tensors}
 * Tensors are dense and row-major (images: height, width, channel). Booleans are bytes, 0 or 1.
 *
 * Memory: the caller brings an arena of {M}_ARENA_BYTES bytes, aligned to {M}_ARENA_ALIGN. Nothing
 * is allocated, no function of any library is called, and nothing is kept between calls. {M}_run may
 * overwrite all of the arena and needs nothing in it; calls in different arenas may run at once.
 * The last {scratch} bytes serve {p}_selftest alone.
 *
 * Threads: {p}_run_part splits one call over `threads` threads of the caller. Each calls it once, with
 * the same pointers and its own `thread` from 0 to threads - 1; the results are those of {p}_run, bit
 * for bit. The first {align} bytes of the arena are their barrier's and must be zero before the first
 * such call (they are ready for the next one after it). A thread that waits for long calls the
 * void (*)(void) at byte 8 of the arena, sched_yield for example, unless it is NULL.
 *
 * Numbers: NaN and infinity are values like any other; an output that depends on a NaN may be NaN or,
 * where a comparison drops it, not. The caller's floating-point modes count: results are as stated for
 * rounding to nearest with subnormal numbers kept. Flush-to-zero or denormals-are-zero change bits.
 */
#ifndef {M}_H
#define {M}_H

#include <stdint.h>

#define {M}_ABI_VERSION {abi}
#define {M}_ARENA_BYTES {arena}u
#define {M}_ARENA_ALIGN {align}u

/* Elements of each tensor of one call. */
{elements}

#ifdef __cplusplus
extern "C" {{
#endif

/* What the functions return. */
enum {{
{codes}
}};

/* Computes {unit}. */
int32_t {p}_run({arguments}, void *arena);

/* The share of one of several threads that compute it together. */
int32_t {p}_run_part({arguments}, void *arena, int32_t thread, int32_t threads);

/* {selftest} */
int32_t {p}_selftest(void *arena);

/* What this library is, as JSON: tensors, target, versions, digests. */
const char *{p}_metadata_json(void);

#ifdef __cplusplus
}}
#endif

#endif
"""


def header(interface: Interface, *, golden: bool) -> str:
    """The text of `<prefix>.h`. `golden`: whether the library has golden outputs."""
    compares = (
        f"Checks the weights, then compares the outputs for embedded inputs, bit for bit. {'{}'}_OK if all is well."
        if golden
        else "Checks the weights. There are no golden outputs, so the best answer is {}_ERROR_NO_GOLDEN."
    )
    macro = interface.macro
    arguments = interface.arguments
    return _HEADER.format(
        prefix=interface.prefix,
        p=interface.prefix,
        M=macro,
        graph=_comment(interface.graph),
        unit="one sample" if interface.batched else "the whole graph",
        tensors="\n".join(map(_describe, arguments)),
        scratch=interface.golden_bytes,
        align=ALIGNMENT,
        abi=ABI_VERSION,
        arena=interface.arena_bytes,
        elements="\n".join(
            f"#define {interface.elements(a)} {a.type.elements}u" for a in arguments
        ),
        codes=",\n".join(
            f"    {macro}_{name} = {code} /* {meaning} */"
            for code, (name, meaning) in CODES.items()
        ).replace(" */,", ", */"),
        arguments=", ".join(map(_parameter, interface.inputs + interface.outputs)),
        selftest=compares.format(macro),
    )
