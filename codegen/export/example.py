"""The example program of a library, and its Makefile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from string import Template

from .header import plain_ascii
from .interface import Argument, Interface

_MAIN = Template("""\
/* Runs the compiled graph "$graph".
 *
$usage *
 * A file holds raw little-endian numbers: the tensors of one call after those of another$fixed.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

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

${classify}int main(int argc, char **argv)
{
    void *arena = memory + (${M}_ARENA_ALIGN - (uintptr_t)memory % ${M}_ARENA_ALIGN);
    FILE *files[INPUTS + OUTPUTS + 1];
    int i, failed, given = argc - 1;
    int32_t code;

    if (given == 1 && !strcmp(argv[1], "--help")) {
        printf("usage: %s $given\\nThe comment at the top of main.c says more.\\n", argv[0]);
        return 0;
    }
    code = ${p}_selftest(arena);
    if (code == ${M}_ERROR_CPU)
        return fail("this CPU lacks some of: " ${M}_CPU_FEATURES, "${p}");
    if (code != ${M}_OK) {
        fprintf(stderr, "self-test failed: ${p}_selftest returned %ld\\n", (long)code);
        return 1;
    }
    fprintf(stderr, "self-test passed\\n");
    if (given == 0 && INPUTS > 0)
        return 0;
${dispatch}    if (given != INPUTS && given != INPUTS + OUTPUTS)
        return fail("usage: $given", argv[0]);
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

_DISPATCH = """\
    if (strcmp(argv[1], "--raw")) {
        for (failed = 0, i = 1; i <= given; i++)
            failed |= classify(argv[i], arena);
        return failed;
    }
    argv++;
    given--;
"""
# Numbers of a header are compared only, never multiplied: none is too large.
_READER = Template("""\
static int is_space(int c)
{
    return c == ' ' || (c >= '\\t' && c <= '\\r');
}

/* The next character of a picture's header. A comment counts as the end of its line. */
static int next(FILE *file)
{
    int c = getc(file);
    if (c == '#')
        do
            c = getc(file);
        while (c != '\\n' && c != '\\r' && c != EOF);
    return c;
}

/* The next number of a header; reads one character behind it. -1 if there is no number. */
static long number(FILE *file)
{
    long n = 0;
    int c = next(file), digits = 0;
    while (is_space(c))
        c = next(file);
    for (; c >= '0' && c <= '9'; c = next(file)) {
        if (n > 99999999)
            return -1;
        n = 10 * n + (c - '0');
        digits = 1;
    }
    return digits && is_space(c) ? n : -1;
}

/* The rest of a picture of the kind P1 to P7. */
static int read_picture(FILE *file, const char *path, int kind)
{
    long width, height, top;
    size_t got, bytes = $bytes;
    if ($unfit) {
        fprintf(stderr, "%s: a picture of the kind P%c; expected " EXPECTED "\\n", path, kind);
        return 1;
    }
    width = number(file);
    height = number(file);
    top = number(file);
    if (width < 0 || height < 0 || top < 0)
        return fail("its header is damaged; expected width, height, maximum", path);
    if (width != ${M}_IMAGE_WIDTH || height != ${M}_IMAGE_HEIGHT || top != 255) {
        fprintf(stderr, "%s: %ld x %ld pixels of 0..%ld; expected " EXPECTED "\\n", path, width,
                height, top);
        return 1;
    }
    got = fread($x, 1, bytes, file);
    if (got != bytes) {
        fprintf(stderr, "%s: ends after %lu of %lu bytes of pixels\\n", path,
                (unsigned long)got, (unsigned long)bytes);
        return 1;
    }
    if (getc(file) != EOF)
        return fail("goes on behind the pixels; expected one picture", path);
$spread$swap    return 0;
}

""")
_SNIFF = """\
    if (start[0] == 'P' && start[1] >= '1' && start[1] <= '7'
        && (is_space(start[2]) || start[2] == '#')) {
        ungetc(start[2], file);
        return read_picture(file, path, start[1]);
    }
"""
_CLASSIFY = Template("""\
#define BYTES ((size_t)${M}_INPUT_ELEMENTS)
#define EXPECTED "$expected"
${names}
${reader}static int read_image(FILE *file, const char *path)
{
    unsigned char start[3] = {0, 0, 0};
    size_t i, got = fread(start, 1, sizeof start, file);
${sniff}    if (!memcmp(start, "\\x89PN", 3) || !memcmp(start, "\\xff\\xd8\\xff", 3))
        return fail("a PNG or JPEG file; expected " EXPECTED, path);
    for (i = 0; i < got && i < BYTES; i++)
        $x[i] = start[i];
    if (got == sizeof start && got < BYTES)
        got += fread($x + got, 1, BYTES - got, file);
    if (got == BYTES && getc(file) == EOF)
        return 0;
    fprintf(stderr, "%s: %s %lu bytes; expected " EXPECTED "\\n", path,
            got < BYTES ? "has" : "has more than", (unsigned long)(got < BYTES ? got : BYTES));
    return 1;
}

/* Prints the class of an image. */
static int classify(const char *path, void *arena)
{
    FILE *file = fopen(path, "rb");
    size_t i, best = 0;
    int32_t code;
    int failed;
    if (!file)
        return fail("cannot be opened", path);
    failed = read_image(file, path);
    fclose(file);
    if (failed)
        return 1;
    code = ${p}_run($x, $y, arena);
    if (code != ${M}_OK) {
        fprintf(stderr, "${p}_run returned %ld\\n", (long)code);
        return 1;
    }
    for (i = 1; i < ${M}_OUTPUT_ELEMENTS; i++)
        if ($y[i] > $y[best])
            best = i;
    printf("%s: class %lu$shown, score %.9g\\n", path, (unsigned long)best$name,
           $score);
    return 0;
}

""")
_SWAP = Template("""\
    for (got = 0; got < BYTES; got += 3) { /* from red, green, blue to blue, green, red */
        uint8_t red = $x[got];
        $x[got] = $x[got + 2];
        $x[got + 2] = red;
    }
""")
_SPREAD = Template("""\
    for (got = BYTES; kind == '5' && got-- > 0;) /* grey: all three channels are the same */
        $x[got] = $x[got / 3];
""")
_PRINTS, _WRITES = "prints the outputs", "writes the outputs"
_PICTURES = {"grey": "PGM (P5)", "rgb": "PPM (P6) or PGM (P5)", "bgr": "PPM (P6) or PGM (P5)"}

_KINDS = {"f32": "f", "i32": "i", "u8": "u", "bool": "u", "i8": "c"}


def program(interface: Interface) -> str:
    """The text of `example/main.c`."""
    ins, outs = _file_names(interface.inputs), _file_names(interface.outputs)
    fixed = [a.name for a in interface.inputs if _once(interface, a)]
    return _MAIN.substitute(
        _of_images(interface, ins, outs) or _of_tensors(ins, outs),
        p=interface.prefix,
        M=interface.macro,
        graph=plain_ascii(interface.graph),
        fixed=plain_ascii(f" (only one in that of {', '.join(fixed)})") if fixed else "",
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


def _of_tensors(ins: str, outs: str) -> dict[str, str]:
    """The parts of a program that reads and writes numbers alone."""
    return {
        "usage": _usage([(ins, _PRINTS), (f"{ins} {outs}", _WRITES)]),
        "given": f"[{ins} [{outs}]]",
        "classify": "",
        "dispatch": "",
    }


def _usage(ways: Sequence[tuple[str, str]]) -> str:
    """A line for each way to call the program: its arguments, and what it then does."""
    ways = [("", "tests the library"), *ways]
    width = max(len(arguments) for arguments, _ in ways)
    return "".join(f" *     ./main {arguments:<{width}}    {does}\n" for arguments, does in ways)


def _of_images(interface: Interface, ins: str, outs: str) -> dict[str, str] | None:
    """The parts of a program that tells the classes of pictures, too; None where a call does not
    take the bytes of one and give scores."""
    image, macro = interface.image, interface.macro
    if image is None or image.dtype != "u8" or not interface.is_simple:
        return None
    x, y = interface.arguments
    if x.type.elements != image.elements or y.source.rank != 2 or y.type.elements < 2:
        return None
    pixels, answer = f"tensor_{x.c_name}", f"tensor_{y.c_name}"
    score, raw = f"(double){answer}[best]", f"{image.elements} raw bytes"
    if y.meaning is not None:
        score = f"{macro}_OUTPUT_SCALE * ({score} - {macro}_OUTPUT_ZERO_POINT)"
    if image.order in _PICTURES:
        size = f"{image.width} x {image.height} pixels of 0..255"
        size += f" (in training others came to it by {image.resize})" if image.resize else ""
        expected = f"a binary {_PICTURES[image.order]} of {size}, or {raw}"
        reader = _reader(macro, pixels, image.order)
    else:
        reader, expected = "", f"{raw} (what their channels are was not declared)"
    named = bool(interface.classes)
    return {
        "usage": _usage(
            [
                ("IMAGE ...", "prints the class of each image, and its score"),
                (f"--raw {ins}", _PRINTS),
                (f"--raw {ins} {outs}", _WRITES),
            ]
        )
        + f" *\n * An IMAGE is {expected}.\n",
        "given": f"[IMAGE ... | --raw {ins} [{outs}]]",
        "dispatch": _DISPATCH,
        "classify": _CLASSIFY.substitute(
            p=interface.prefix,
            M=macro,
            x=pixels,
            y=answer,
            expected=expected,
            names=f"static const char *const names[] = {macro}_CLASSES;\n" * named,
            shown=" (%s)" * named,
            name=", names[best]" * named,
            score=score,
            reader=reader,
            sniff=_SNIFF if reader else "",
        ),
    }


def _reader(macro: str, pixels: str, order: str) -> str:
    """The functions that read a picture; a grey one gives each of three channels its byte."""
    colour = order != "grey"
    return _READER.substitute(
        M=macro,
        x=pixels,
        unfit="kind != '6' && kind != '5'" if colour else "kind != '5'",
        bytes="kind == '5' ? BYTES / 3 : BYTES" if colour else "BYTES",
        spread=_SPREAD.substitute(x=pixels) * colour,
        swap=_SWAP.substitute(x=pixels) * (order == "bgr"),
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
