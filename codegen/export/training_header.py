"""The C99 header of a library that learns."""

from __future__ import annotations

from collections.abc import Iterator
from string import Template

from addergraph.ir.plan import ALIGNMENT

from .header import blocks_of_images, c_string, code_of, filled, images_text, plain_ascii
from .interface import ABI_VERSION, Argument
from .training_interface import STATE_VERSION, TRAINING_CODES, Answer, TrainingInterface

_HEADER = Template("""\
/* $p.h: the network "$graph" and a step of its training, by AdderGraph. For C99 and C++.
 *
 *     static uint8_t state[${M}_STATE_BYTES] __attribute__((aligned(${M}_ARENA_ALIGN)));
 *     static uint8_t arena[${M}_ARENA_BYTES] __attribute__((aligned(${M}_ARENA_ALIGN)));
 *     ${p}_init(state);
 *     for (...) ${p}_train($call, &rate, &loss, state, arena);
 *     ${p}_run($run_call, state, arena);
 *
 * ${p}_train takes $batch sample$s, one after another, and what their answers shall be:
$given
 * ${p}_run computes one sample:
$made
 * Tensors are dense and row-major (images: height, width, channel).
 *
 * Memory. The caller brings the state and an arena. The state holds all that training changes:
 * weights, running statistics and what the optimizer keeps. It may be copied, and moved to another
 * machine in the form of ${p}_save. Nothing is kept between calls elsewhere, nothing is allocated
 * and no other library is called. Calls with different states and arenas may run at once; one
 * thread computes a call. The arena needs nothing and is overwritten.
 *
 * A step that is given a wrong label or rate returns a code and changes nothing. One that is given
 * NaN or infinity as a sample or target leaves NaN in the state: look at the loss, and keep a saved
 * state.$images
 *
 * Numbers. The bits hold for rounding to nearest with subnormal numbers kept: flush-to-zero and
 * denormals-are-zero, which are modes of the calling thread, change them.
 *
$code
 */
#ifndef ${M}_H
#define ${M}_H

#include <stdint.h>

#define ${M}_ABI_VERSION $abi
#define ${M}_ARENA_BYTES ${arena}u
#define ${M}_STATE_BYTES ${state}u
#define ${M}_ARENA_ALIGN ${align}u /* of arena and state */
#define ${M}_SAVED_BYTES ${saved}u
#define ${M}_STATE_VERSION $version
#define ${M}_TARGET "$triple"
#define ${M}_CPU "$cpu"
#define ${M}_CPU_FEATURES $features
$stack

/* Samples of a step, and elements of each tensor of one sample. */
#define ${M}_BATCH ${batch}u
$elements
$blocks
/* What stands where in the state, as data:
 *     struct tensor { const char *name; uint32_t offset, elements, rank, shape[$rank]; };
 *     static const struct tensor layout[] = ${M}_STATE_LAYOUT;
$kinds
#define ${M}_STATE_TENSORS ${count}u
#define ${M}_STATE_LAYOUT { \\
$layout
}

#ifdef __cplusplus
extern "C" {
#endif

/* What the functions return. */
enum {
$codes
};

/* The state before the first step: the weights that the library was exported with. */
int32_t ${p}_init(void * /* state */);

/* One step: the state moves by the gradient of the loss, at this learning rate, which is read from
 * memory so that programs of every float ABI link. *loss is the mean loss before the step. */
int32_t ${p}_train($train);

/* What the network, with the weights in the state, answers. */
int32_t ${p}_run($run);

/* Writes the state as ${M}_SAVED_BYTES bytes, which need no alignment. */
int32_t ${p}_save(const void * /* state */, void * /* bytes */);

/* Reads `size` bytes that ${p}_save wrote, here or on another machine. Those of another network or
 * version, of which some are missing or that are damaged are refused, and the state stays. */
int32_t ${p}_load(void * /* state */, const void * /* bytes */, uint32_t /* size */);

$selftest */
int32_t ${p}_selftest(void * /* state */, void * /* arena */);

/* $supported */
int32_t ${p}_supported(void);

/* What this library is, as JSON: tensors, state, target, versions and digests. */
const char *${p}_metadata_json(void);

#ifdef __cplusplus
}
#endif

#endif
""")
_SELFTEST = Template(
    "/* ${M}_OK if this CPU is supported, the constants are intact, and a step on built-in samples "
    "gives $what. Leaves the state of ${p}_init."
)
_EXACT = "the loss and the state that it shall, to the bit"
_NEAR = (
    "the loss that it shall, within what rounding explains: the code was written on a machine that "
    "could not run it"
)


def header(interface: TrainingInterface, *, exact: bool, stack: int | None) -> str:
    """The text of `<prefix>.h`; `exact`: whether the self-test expects the same bits."""
    prefix, macro, image = interface.prefix, interface.macro, interface.image
    inputs = [f"const {a.c_type} * /* {a.c_name} */" for a in interface.samples]
    answers = [f"const {a.c_type} * /* {a.c_name} */" for a in interface.answers]
    outputs = [f"{a.c_type} * /* {a.c_name} */" for a in interface.outputs]
    rate, loss = "const float * /* rate */", "float * /* loss */"
    state, const_state, arena = (
        "void * /* state */",
        "const void * /* state */",
        "void * /* arena */",
    )
    last = max(TRAINING_CODES)
    codes = [
        f"    {macro}_{name} = {code}{',' * (code != last)} /* {meaning} */"
        for code, (name, meaning) in sorted(TRAINING_CODES.items())
    ]
    one, given = [a.c_name for a in interface.samples], [a.c_name for a in interface.answers]
    return _HEADER.substitute(
        p=prefix,
        M=macro,
        graph=plain_ascii(interface.graph),
        call=", ".join([*one, *given]),
        run_call=", ".join([*one, *(a.c_name for a in interface.outputs)]),
        batch=interface.batch,
        s="s" * (interface.batch > 1),
        given="\n".join([*map(_sample, interface.samples), *map(_answer, interface.answers)]),
        made="\n".join(map(_sample, (*interface.samples, *interface.outputs))),
        images="" if image is None else _images(interface),
        abi=ABI_VERSION,
        arena=interface.arena_bytes,
        state=interface.state_bytes,
        saved=interface.saved_bytes,
        version=STATE_VERSION,
        align=ALIGNMENT,
        stack=_stack(macro, stack),
        elements="\n".join(
            f"#define {macro}_{a.c_name.upper()}_ELEMENTS {a.type.elements}u"
            for a in (*interface.samples, *interface.outputs)
        ),
        blocks="".join(
            f"\n{block}\n" for block in blocks_of_images(macro, image, interface.classes)
        ),
        rank=max(len(b.type.sizes) or 1 for b in interface.state),
        kinds=_kinds([plain_ascii(b.name) for b in interface.state if b.type.dtype.name != "f32"]),
        count=len(interface.state),
        layout="\n".join(_layout(interface)),
        codes="\n".join(codes),
        train=_wrapped([*inputs, *answers, rate, loss, state, arena]),
        run=_wrapped([*inputs, *outputs, const_state, arena]),
        selftest=filled(_SELFTEST.substitute(M=macro, p=prefix, what=_EXACT if exact else _NEAR)),
        **code_of(prefix, macro, interface.target),
    )


def _kinds(whole: list[str]) -> str:
    """The end of the comment on the layout: which of the tensors are no floats."""
    but = f", but for {', '.join(whole)}: int32_t" if whole else ""
    return filled(f" * Offsets are in bytes. All are float{but}. */")


def _wrapped(parameters: list[str]) -> str:
    return "\n    " + ",\n    ".join(parameters)


def _sample(argument: Argument) -> str:
    return plain_ascii(f" *   {argument.c_name}: {argument.type}")


def _answer(answer: Answer) -> str:
    known = f", each from 0 to {answer.classes - 1}" * answer.labelled
    return plain_ascii(f" *   {answer.c_name}: {answer.given}{known}")


def _images(interface: TrainingInterface) -> str:
    assert interface.image is not None
    return images_text(interface.image, interface.samples, interface.outputs, interface.classes)


def _layout(interface: TrainingInterface) -> Iterator[str]:
    last = interface.state[-1]
    for block in interface.state:
        sizes = ", ".join(f"{size}u" for size in block.type.sizes) or "1u"
        rank, elements = len(block.type.sizes), block.type.elements
        name = c_string(block.name)
        row = f"{{{name}, {block.offset}u, {elements}u, {rank}u, {{{sizes}}}}}"
        yield f"    {row}{',' * (block is not last)} \\"


def _stack(macro: str, stack: int | None) -> str:
    if stack is None:
        return "/* How much stack a call takes is not known. */"
    return f"/* The most that a call takes of the stack. */\n#define {macro}_STACK_BYTES {stack}u"
