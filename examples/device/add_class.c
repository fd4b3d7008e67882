/* Teaches a network that knows the digits 0 to 8 the 9, from a few examples: its last layer learns.
 *
 *     add_class FOLDER [EXAMPLES]
 *
 * Beside the examples of the new class it sees some of the known ones, so that it does not forget
 * them. FOLDER is what export.py made. */
#include "more.h"
#include "samples.h"

#include <string.h>

enum { NEW = 9, OLD_PER_CLASS = 20, STEPS = 400 };

static _Alignas(MORE_ARENA_ALIGN) uint8_t state[MORE_STATE_BYTES], arena[MORE_ARENA_BYTES];

/* The shares of right answers for the classes that were known, and for the new one. */
static void report(const char *when, const struct samples *test)
{
    uint32_t right[2] = {0, 0}, all[2] = {0, 0};
    for (uint32_t i = 0; i < test->count; i++) {
        const struct sample *one = &test->all[i];
        float scores[MORE_LAST_ELEMENTS];
        if (more_run(one->pixels, scores, state, arena) != MORE_OK)
            fail("more_run", 0);
        all[one->label == NEW]++;
        right[one->label == NEW] += largest(scores, MORE_LAST_ELEMENTS) == one->label;
    }
    printf("%s: known classes %.4f, new class %.4f\n", when, (double)right[0] / all[0],
           (double)right[1] / all[1]);
}

/* The first samples of each class: `few` of the new one. How many there are. */
static uint32_t chosen(const struct samples *from, uint32_t few, struct sample *into)
{
    uint32_t seen[NEW + 1] = {0}, count = 0;
    for (uint32_t i = 0; i < from->count; i++) {
        uint32_t most = from->all[i].label == NEW ? few : OLD_PER_CLASS;
        if (seen[from->all[i].label]++ < most)
            into[count++] = from->all[i];
    }
    return count;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        fail("usage: add_class FOLDER [EXAMPLES]", argc);
    struct samples train = samples_of(argv[1], "train.bin"), test = samples_of(argv[1], "test.bin");
    int few = argc > 2 ? atoi(argv[2]) : 10;
    struct sample shown[(NEW + 1) * 200];
    if (few < 1 || few > 200)
        fail("EXAMPLES is a number from 1 to 200", few);
    uint32_t count = chosen(&train, (uint32_t)few, shown), seed = 1;
    int32_t code = more_selftest(state, arena);
    if (code != MORE_OK)
        fail("more_selftest", code);
    more_init(state);
    report("before", &test);
    for (int step = 0; step < STEPS; step++) {
        uint8_t pixels[MORE_BATCH * MORE_X_ELEMENTS];
        int32_t labels[MORE_BATCH];
        float rate = 0.02f, loss;
        for (uint32_t i = 0; i < MORE_BATCH; i++) {
            /* Of the new class one in four, so that few examples weigh as much as many. */
            uint32_t old = count - (uint32_t)few, at = drawn(&seed, old);
            const struct sample *one = shown;
            int is_new = i % 4 == 0;
            at = is_new ? drawn(&seed, (uint32_t)few) : at;
            while ((one->label == NEW) != is_new || at-- > 0)
                one++;
            memcpy(pixels + i * MORE_X_ELEMENTS, one->pixels, MORE_X_ELEMENTS);
            labels[i] = one->label;
        }
        code = more_train(pixels, labels, &rate, &loss, state, arena);
        if (code != MORE_OK)
            fail("more_train", code);
    }
    report("after", &test);
    return 0;
}
