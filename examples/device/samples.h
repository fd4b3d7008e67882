/* The digits in files, and numbers drawn at random: what both programs share. */
#ifndef SAMPLES_H
#define SAMPLES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { PIXELS = 64 };

struct sample {
    uint8_t pixels[PIXELS];
    int32_t label;
};

struct samples {
    struct sample *all;
    uint32_t count;
};

/* Ends the program, and says why. */
static void fail(const char *what, int code)
{
    fprintf(stderr, "%s (%d)\n", what, code);
    exit(1);
}

static FILE *opened(const char *folder, const char *name, const char *mode)
{
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = length < (int)sizeof path ? fopen(path, mode) : NULL;
    if (file == NULL)
        fail(name, length);
    return file;
}

static struct samples samples_of(const char *folder, const char *name)
{
    FILE *file = opened(folder, name, "rb");
    struct samples found = {malloc(5000 * sizeof(struct sample)), 0};
    if (found.all == NULL)
        fail("no memory", 0);
    found.count = (uint32_t)fread(found.all, sizeof(struct sample), 5000, file);
    fclose(file);
    return found;
}

/* Below `most`. Marsaglia 2003, "Xorshift RNGs", with a shift of (13, 17, 5). */
static uint32_t drawn(uint32_t *seed, uint32_t most)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed % most;
}

static int32_t largest(const float *scores, int32_t count)
{
    int32_t best = 0;
    for (int32_t i = 1; i < count; i++)
        if (scores[i] > scores[best])
            best = i;
    return best;
}

#endif
