"""The text that goes out with a library: the C99 header, the example program and its Makefile."""

from __future__ import annotations

from collections.abc import Iterable
from string import Template

from addergraph.ir.plan import ALIGNMENT

from .interface import ABI_VERSION, CODES, Argument, Interface

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
$numbers
 */
#ifndef ${M}_H
#define ${M}_H

#include <stdint.h>

#define ${M}_ABI_VERSION $abi
#define ${M}_ARENA_BYTES ${arena}u
#define ${M}_ARENA_ALIGN ${align}u
$stack

/* Elements of each tensor. */
$elements
$meaning
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

/* $selftest */
int32_t ${p}_selftest(void * /* arena */);

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
 * Threads. This machine has no atomic instructions, so one thread alone computes a call:
 * ${p}_run_part takes thread 0 of 1.""")

_FLOATS = """\
 * Numbers. NaN and infinities are values, not errors. An adder layer passes NaN on, and gives
 * -infinity (or NaN) for an infinite input; comparisons with NaN are false. The bits of the outputs
 * hold for rounding to nearest with subnormal numbers kept: flush-to-zero and denormals-are-zero,
 * which are modes of the calling thread, change them."""
_INTEGERS = """\
 * Numbers. All of them are integers: any input is valid, and the outputs have the same bits on
 * every machine."""
_MEANING = Template("""
/* Quantized tensors: value = SCALE * (q - ZERO_POINT). An input is made of real numbers by
 * dividing by SCALE, rounding to nearest, adding ZERO_POINT, and clipping. */
$macros
""")

_MAIN = Template("""\
/* Runs the compiled graph "$graph".
 *
 *     ./main                      tests the library
 *     ./main $ins    prints the outputs
 *     ./main $ins $outs    writes the outputs
 *
 * A file holds raw little-endian numbers: the tensors of one call after those of another$fixed.
 */
#include <stdint.h>
#include <stdio.h>

#include "../$p.h"

typedef struct {
    const char *name;
    char kind; /* f: float, i: int32_t, u: uint8_t, c: int8_t */
    int once;  /* read before the first call only */
    size_t size;
    size_t elements;
    void *data;
} tensor;

/* Arrays have at least one element; C knows no empty ones. */
#define STORAGE(elements) ((elements) > 0 ? (elements) : 1)
$storage
static unsigned char memory[${M}_ARENA_BYTES + ${M}_ARENA_ALIGN];

enum { INPUTS = $inputs, OUTPUTS = $outputs };
static const tensor inputs[INPUTS + 1] = {
$input_table    {0, 0, 0, 0, 0, 0}
};
static const tensor outputs[OUTPUTS + 1] = {
$output_table    {0, 0, 0, 0, 0, 0}
};

static int fail(const char *what, const char *which)
{
    fprintf(stderr, "%s: %s\\n", which, what);
    return 1;
}

/* 1 if all inputs of a call were read, 0 at the end of the files, -1 if one ends too early. */
static int read_inputs(FILE **files, int first)
{
    int i, ended = 0, read = 0;
    for (i = 0; i < INPUTS; i++) {
        const tensor *t = &inputs[i];
        size_t bytes = t->size * t->elements, got;
        if (bytes == 0 || (t->once && !first))
            continue;
        got = fread(t->data, 1, bytes, files[i]);
        if (got != bytes && (got != 0 || t->once || ferror(files[i]))) {
            fail("ends inside a tensor", t->name);
            return -1;
        }
        ended += got == 0;
        read += got != 0 && !t->once;
    }
    if (ended && read) {
        fail("an input file has fewer tensors than another", "inputs");
        return -1;
    }
    /* Without anything to read there is one call. */
    return !ended && (read || first);
}

static void print(const tensor *t)
{
    size_t i;
    printf("%s:", t->name);
    for (i = 0; i < t->elements; i++) {
        switch (t->kind) {
        case 'f': printf(" %.9g", (double)((const float *)t->data)[i]); break;
        case 'i': printf(" %ld", (long)((const int32_t *)t->data)[i]); break;
        case 'u': printf(" %u", (unsigned)((const uint8_t *)t->data)[i]); break;
        default: printf(" %d", (int)((const int8_t *)t->data)[i]); break;
        }
    }
    printf("\\n");
}

static int write_outputs(FILE **files)
{
    int i;
    for (i = 0; i < OUTPUTS; i++) {
        const tensor *t = &outputs[i];
        if (!files)
            print(t);
        else if (fwrite(t->data, t->size, t->elements, files[i]) != t->elements)
            return fail("cannot be written", t->name);
    }
    return 0;
}

static int run_files(FILE **in, FILE **out, void *arena)
{
    long calls = 0;
    int state;
    while ((state = read_inputs(in, calls == 0)) == 1) {
        int32_t code = ${p}_run($arguments);
        if (code != ${M}_OK) {
            fprintf(stderr, "${p}_run returned %ld\\n", (long)code);
            return 1;
        }
        if (write_outputs(out))
            return 1;
        calls++;
    }
    fprintf(stderr, "%ld calls\\n", calls);
    return state != 0;
}

int main(int argc, char **argv)
{
    void *arena = memory + (${M}_ARENA_ALIGN - (uintptr_t)memory % ${M}_ARENA_ALIGN);
    FILE *files[INPUTS + OUTPUTS + 1];
    int i, failed, given = argc - 1;
    int32_t code = ${p}_selftest(arena);

    if (code != ${M}_OK && code != ${M}_ERROR_NO_GOLDEN) {
        fprintf(stderr, "self-test failed: ${p}_selftest returned %ld\\n", (long)code);
        return 1;
    }
    fprintf(stderr, code == ${M}_OK ? "self-test passed\\n" : "no golden outputs to test with\\n");
    if (given == 0 && INPUTS > 0)
        return 0;
    if (given != INPUTS && given != INPUTS + OUTPUTS)
        return fail("usage: [$ins [$outs]]", argv[0]);
    for (i = 0; i < given; i++) {
        files[i] = fopen(argv[i + 1], i < INPUTS ? "rb" : "wb");
        if (!files[i])
            return fail("cannot be opened", argv[i + 1]);
    }
    failed = run_files(files, given > INPUTS ? files + INPUTS : NULL, arena);
    for (i = 0; i < given; i++)
        if (fclose(files[i]))
            failed = fail("cannot be written", argv[i + 1]);
    return failed;
}
""")

_MAKEFILE = Template("""\
CC ?= cc
CFLAGS ?= -O2 -Wall -Wextra -pedantic

main: main.c ../$p.h ../lib$p.a
\t$$(CC) -std=c99 $$(CFLAGS) -o $$@ main.c ../lib$p.a

.PHONY: check clean
check: main
\t./main

clean:
\trm -f main
""")

_KINDS = {"f32": "f", "i32": "i", "u8": "u", "bool": "u", "i8": "c"}


def header(interface: Interface, *, golden: bool, stack: int | None = None) -> str:
    """The text of `<prefix>.h`.

    golden  whether the library has golden outputs
    stack   the bytes that a call takes of it at most, where they are known
    """
    prefix, macro, arguments = interface.prefix, interface.macro, interface.arguments
    # In comments, where no macro of the program that includes this is replaced.
    parameters = [
        f"{'const ' if a in interface.inputs else ''}{a.c_type} * /* {a.c_name} */"
        for a in arguments
    ]
    arena = "void * /* arena */"
    if golden:
        selftest = (
            f"{macro}_OK if the weights are intact and built-in inputs give built-in outputs, "
            "to the bit."
        )
    else:
        selftest = f"Checks the weights alone: {macro}_ERROR_NO_GOLDEN if they are intact."
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
        graph=_ascii(interface.graph),
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
        meaning=_meaning(interface),
        numbers=_FLOATS if interface.floats else _INTEGERS,
        codes="\n".join(codes),
        run=", ".join([*parameters, arena]),
        run_part=", ".join([*parameters, arena, "int32_t /* thread */", "int32_t /* threads */"]),
        selftest=selftest,
        threads=threads.substitute(p=prefix, align=ALIGNMENT) + relaxes,
    )


def _stack(interface: Interface, stack: int | None) -> str:
    if stack is None:
        return "/* How much stack a call takes is not known. */"
    beside = ", beside the function that a waiting thread calls" if interface.threaded else ""
    return (
        f"/* The most that a call takes of the stack{beside}. */\n"
        f"#define {interface.macro}_STACK_BYTES {stack}u"
    )


def _meaning(interface: Interface) -> str:
    """The macros of scales and zero points; nothing where no tensor has them."""
    known = [macro for a in interface.arguments for macro in interface.meaning(a)]
    macros = "\n".join(f"#define {name} {value}" for name, value in known)
    return _MEANING.substitute(macros=macros) if known else ""


def example(interface: Interface) -> str:
    """The text of `example/main.c`."""
    fixed = [a.name for a in interface.inputs if _once(interface, a)]
    return _MAIN.substitute(
        p=interface.prefix,
        M=interface.macro,
        graph=_ascii(interface.graph),
        ins=_file_names(interface.inputs),
        outs=_file_names(interface.outputs),
        fixed=_ascii(f" (only one in that of {', '.join(fixed)})") if fixed else "",
        storage="\n".join(
            f"static {a.c_type} tensor_{a.c_name}[STORAGE({interface.elements(a)})];"
            for a in interface.arguments
        ),
        inputs=len(interface.inputs),
        outputs=len(interface.outputs),
        input_table=_table(interface, interface.inputs),
        output_table=_table(interface, interface.outputs),
        arguments=", ".join([*(f"tensor_{a.c_name}" for a in interface.arguments), "arena"]),
    )


def makefile(interface: Interface) -> str:
    """The text of `example/Makefile`."""
    return _MAKEFILE.substitute(p=interface.prefix)


def _table(interface: Interface, arguments: Iterable[Argument]) -> str:
    return "".join(
        f"    {{\"{a.c_name}\", '{_KINDS[a.type.dtype.name]}', {int(_once(interface, a))}, "
        f"sizeof({a.c_type}), {interface.elements(a)}, tensor_{a.c_name}}},\n"
        for a in arguments
    )


def _once(interface: Interface, argument: Argument) -> bool:
    """Whether all samples of an open batch share this input."""
    return interface.batched and not argument.source.is_open


def _file_names(arguments: Iterable[Argument]) -> str:
    return " ".join(f"{a.c_name}.bin" for a in arguments)


def _described(argument: Argument) -> str:
    return _ascii(f" *   {argument.c_name}: {argument.type}")


def _ascii(text: str) -> str:
    """`text` for a C file: names may have letters that C99 source need not know."""
    return text.encode("ascii", "backslashreplace").decode()
