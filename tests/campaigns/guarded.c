/* Calls an exported library where nothing can go wrong unseen: every buffer and the weights lie
 * against a page that may not be touched, behind them (placement 1) or before them (0). What is
 * only read is read-only. By one thread, then by three. GENERATED has the tensors and the call.
 *
 *     ./guarded PLACEMENT inputs... outputs...
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include GENERATED

#define PAGE 4096u
#define TENSORS (INPUTS + OUTPUTS)
enum { THREADS = 3 };

extern unsigned char guard_below[], guard_above[], guarded_weights[];
extern const unsigned char original_weights[];

static unsigned char *data[TENSORS], *arena;
static int32_t codes[THREADS];

static void fail(const char *what)
{
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

static void protect(void *address, size_t bytes, int mode)
{
    if (bytes && mprotect(address, bytes, mode))
        fail("mprotect");
}

/* `bytes` against an untouchable page, as garbage. */
static unsigned char *placed(size_t bytes, int right)
{
    size_t span = (bytes + PAGE - 1) / PAGE * PAGE;
    unsigned char *base = mmap(NULL, span + 2 * PAGE, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        fail("mmap");
    memset(base + PAGE, 0xA5, span);
    protect(base, PAGE, PROT_NONE);
    protect(base + PAGE + span, PAGE, PROT_NONE);
    return base + PAGE + (right ? span - bytes : 0);
}

static void move_bytes(int i, const char *path, const char *mode)
{
    FILE *file = fopen(path, mode);
    size_t done;
    if (!file)
        fail(path);
    done = i < INPUTS ? fread(data[i], 1, sizes[i], file) : fwrite(data[i], 1, sizes[i], file);
    if (done != sizes[i] || fclose(file))
        fail(path);
}

static void *part(void *number)
{
    int32_t thread = (int32_t)(intptr_t)number;
    codes[thread] = RUN_PART(data, arena, thread, THREADS);
    return NULL;
}

static void by_threads(void)
{
    pthread_t others[THREADS];
    unsigned char *before[OUTPUTS];
    intptr_t t;
    int i;
    for (i = 0; i < OUTPUTS; i++) {
        before[i] = malloc(sizes[INPUTS + i] + 1);
        memcpy(before[i], data[INPUTS + i], sizes[INPUTS + i]);
        memset(data[INPUTS + i], 0xA5, sizes[INPUTS + i]);
    }
    memset(arena, 0, 64);
    for (t = 0; t < THREADS; t++)
        if (pthread_create(&others[t], NULL, part, (void *)t))
            fail("pthread_create");
    for (t = 0; t < THREADS; t++)
        if (pthread_join(others[t], NULL) || codes[t] != 0)
            fail("run_part");
    for (i = 0; i < OUTPUTS; i++) {
        if (memcmp(before[i], data[INPUTS + i], sizes[INPUTS + i]))
            fail("threads change bits");
        free(before[i]);
    }
}

int main(int argc, char **argv)
{
    int i, right = argc > 1 && argv[1][0] == '1';
    if (argc != 2 + TENSORS)
        fail("usage");
    memcpy(guarded_weights, original_weights, WEIGHTS_BYTES);
    protect(guard_below + PAGE, (size_t)(guard_above - guard_below) - PAGE, PROT_READ);
    protect(guard_below, PAGE, PROT_NONE);
    protect(guard_above, PAGE, PROT_NONE);
    arena = placed(ARENA_BYTES, right);
    if ((uintptr_t)arena % 64 != 0)
        fail("the arena has no whole number of cache lines");
    for (i = 0; i < TENSORS; i++) {
        data[i] = placed(sizes[i], right);
        if (i < INPUTS)
            move_bytes(i, argv[2 + i], "rb");
    }
    for (i = 0; i < INPUTS; i++) {
        uintptr_t start = (uintptr_t)data[i] / PAGE * PAGE;
        protect((void *)start, (uintptr_t)data[i] + sizes[i] - start, PROT_READ);
    }
    if (RUN(data, arena) != 0)
        fail("run");
    by_threads();
    for (i = INPUTS; i < TENSORS; i++)
        move_bytes(i, argv[2 + i], "wb");
    if (SELFTEST(arena) != 0)
        fail("selftest");
    /* For the search for leaks, which reads all static data. */
    protect(guard_below, (size_t)(guard_above - guard_below) + PAGE, PROT_READ);
    return 0;
}
