/* One call of an exported library on another machine. Every operand lies between two pages that may
 * not be touched, once against the one behind it and once against the one before it; what is only
 * read is read-only. On a machine without pages (PAGES not defined) the bytes around must stay as
 * they are instead. "case.h" has the tensors, their places and the call.
 *
 * Answers with two words: 0 or what is wrong, and of which tensor.
 */
#include "case.h"

#ifdef LIBC
#include <sys/mman.h>
#include <unistd.h>
static void answer(const uint32_t *words) { if (write(1, words, 8) != 8) _exit(99); }
#ifdef PAGES
static long protected(void *at, unsigned long bytes, int mode) { return mprotect(at, bytes, mode); }
#endif
#else
#include "board.h"
static void answer(const uint32_t *words) { board_write(words, 8); }
#endif

enum { RIGHT = 0, STATUS, OTHER_BITS, TOUCHED, NOT_PROTECTED, SELFTEST };
enum { NONE = 0, READ = 1, BOTH = 3 };

#if defined(PAGES) && !defined(LIBC)
#if defined(__arm__)
enum { MPROTECT = 125 };
#define TRAP "svc 0"
#define REGISTERS "r0", "r1", "r2", "r7"
#elif defined(__riscv)
enum { MPROTECT = 226 };
#define TRAP "ecall"
#define REGISTERS "a0", "a1", "a2", "a7"
#else
enum { MPROTECT = 226 };
#define TRAP "svc 0"
#define REGISTERS "x0", "x1", "x2", "x8"
#endif
#define FOUR(r0, r1, r2, r7) \
    register long one __asm__(r0) = (long)at; \
    register long two __asm__(r1) = (long)bytes; \
    register long three __asm__(r2) = mode; \
    register long number __asm__(r7) = MPROTECT; \
    __asm__ volatile(TRAP : "+r"(one) : "r"(two), "r"(three), "r"(number) : "memory"); \
    return one
#define EXPANDED(list) FOUR(list)
static long protected(void *at, unsigned long bytes, int mode)
{
    EXPANDED(REGISTERS);
}
#elif !defined(PAGES)
static long protected(void *at, unsigned long bytes, int mode)
{
    (void)at, (void)bytes, (void)mode;
    return 0;
}
#endif

static unsigned char memory[MEMORY] __attribute__((aligned(PAGE)));
typedef struct {
    uint32_t first, span, at, bytes; /* of the memory: pages that may be touched, and the operand */
} place_t;
static const place_t before[] = LEFT, behind[] = RIGHT_PLACES; /* the last one is the arena */
static const place_t *const places[2] = {before, behind};
#ifdef WEIGHTS
extern unsigned char guard_below[], guard_above[];
#endif

static int differ(const unsigned char *found, const unsigned char *right, uint32_t bytes, int floats)
{
    uint32_t i, k, a, b;
    for (i = 0; i < bytes; i += floats ? 4 : 1) {
        if (!floats) {
            if (found[i] != right[i])
                return 1;
            continue;
        }
        for (k = a = b = 0; k < 4; k++) {
            a |= (uint32_t)found[i + k] << 8 * k;
            b |= (uint32_t)right[i + k] << 8 * k;
        }
        if (a != b && ((a & 0x7FFFFFFFu) <= 0x7F800000u || (b & 0x7FFFFFFFu) <= 0x7F800000u))
            return 1; /* one NaN is as good as another */
    }
    return 0;
}

static uint32_t tried(int right, uint32_t *which)
{
    const place_t *p = places[right];
    uint32_t i, k;
    unsigned char *d[TENSORS + 1];
    if (protected(memory, MEMORY, BOTH))
        return NOT_PROTECTED;
    for (k = 0; k < MEMORY; k++)
        memory[k] = 0xA5;
    for (i = 0; i <= TENSORS; i++) {
        *which = i;
        d[i] = memory + p[i].at;
        for (k = 0; i < INPUTS && k < p[i].bytes; k++)
            d[i][k] = given[i][k];
        if (protected(memory + p[i].first - PAGE, PAGE, NONE)
            || protected(memory + p[i].first + p[i].span, PAGE, NONE)
            || (i < INPUTS && p[i].span && protected(memory + p[i].first, p[i].span, READ)))
            return NOT_PROTECTED;
    }
    if (RUN(d, d[TENSORS]) != 0)
        return STATUS;
    for (i = INPUTS; i < TENSORS; i++) {
        *which = i;
        if (differ(d[i], given[i], p[i].bytes, floats[i]))
            return OTHER_BITS;
    }
    if (protected(memory, MEMORY, BOTH))
        return NOT_PROTECTED;
    for (i = 0; i <= TENSORS; i++) {
        *which = i;
        for (k = p[i].first - PAGE; k < p[i].first + p[i].span + PAGE; k++)
            if ((k < p[i].at || k >= p[i].at + p[i].bytes) && memory[k] != 0xA5)
                return TOUCHED;
        for (k = 0; i < INPUTS && k < p[i].bytes; k++)
            if (d[i][k] != given[i][k])
                return TOUCHED;
    }
    return RIGHT;
}

int main(void)
{
    uint32_t words[2] = {RIGHT, 0};
    int right;
#ifdef WEIGHTS
    if (protected(guard_below, PAGE, NONE) || protected(guard_above, PAGE, NONE)
        || protected(guard_below + PAGE, (unsigned long)(guard_above - guard_below) - PAGE, READ))
        words[0] = NOT_PROTECTED;
#endif
    for (right = 0; right < 2 && words[0] == RIGHT; right++)
        words[0] = tried(right, &words[1]);
    if (words[0] == RIGHT && SELFTESTED(memory + places[0][TENSORS].at) != 0)
        words[0] = SELFTEST;
    answer(words);
    return words[0] != RIGHT;
}
