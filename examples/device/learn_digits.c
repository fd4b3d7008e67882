/* Learns the digits from scratch, on this machine, without Python:
 *
 *     learn_digits FOLDER [EPOCHS]
 *
 * FOLDER is what export.py made. The state is written there as learned.state. */
#include "learn.h"
#include "samples.h"

#include <string.h>

static _Alignas(LEARN_ARENA_ALIGN) uint8_t state[LEARN_STATE_BYTES], arena[LEARN_ARENA_BYTES];
static uint8_t saved[LEARN_SAVED_BYTES];

/* Fisher and Yates. */
static void shuffle(struct sample *all, uint32_t count, uint32_t *seed)
{
    for (uint32_t i = count; i > 1; i--) {
        uint32_t j = drawn(seed, i);
        struct sample held = all[i - 1];
        all[i - 1] = all[j];
        all[j] = held;
    }
}

static uint32_t right(const struct samples *test)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < test->count; i++) {
        float scores[LEARN_LAST_ELEMENTS];
        if (learn_run(test->all[i].pixels, scores, state, arena) != LEARN_OK)
            fail("learn_run", 0);
        count += largest(scores, LEARN_LAST_ELEMENTS) == test->all[i].label;
    }
    return count;
}

/* All steps of one epoch; the mean loss. */
static float epoch(struct samples *train, float rate, uint32_t *seed)
{
    uint32_t steps = train->count / LEARN_BATCH;
    float sum = 0.0f;
    shuffle(train->all, train->count, seed);
    for (uint32_t step = 0; step < steps; step++) {
        uint8_t pixels[LEARN_BATCH * LEARN_X_ELEMENTS];
        int32_t labels[LEARN_BATCH];
        float loss;
        for (uint32_t i = 0; i < LEARN_BATCH; i++) {
            const struct sample *one = &train->all[step * LEARN_BATCH + i];
            memcpy(pixels + i * LEARN_X_ELEMENTS, one->pixels, LEARN_X_ELEMENTS);
            labels[i] = one->label;
        }
        int32_t code = learn_train(pixels, labels, &rate, &loss, state, arena);
        if (code != LEARN_OK)
            fail("learn_train", code);
        sum += loss;
    }
    return sum / (float)steps;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        fail("usage: learn_digits FOLDER [EPOCHS]", argc);
    struct samples train = samples_of(argv[1], "train.bin"), test = samples_of(argv[1], "test.bin");
    int epochs = argc > 2 ? atoi(argv[2]) : 15;
    uint32_t seed = 1;
    int32_t code = learn_selftest(state, arena);
    if (code != LEARN_OK)
        fail("learn_selftest", code);
    learn_init(state);
    for (int i = 0; i < epochs; i++) {
        float rate = 0.05f * (float)(epochs - i) / (float)epochs;
        float loss = epoch(&train, rate, &seed);
        printf("epoch %d/%d loss %.4f accuracy %.4f\n", i + 1, epochs, (double)loss,
               (double)right(&test) / test.count);
    }
    learn_save(state, saved);
    FILE *file = opened(argv[1], "learned.state", "wb");
    if (fwrite(saved, sizeof saved, 1, file) != 1 || fclose(file) != 0)
        fail("learned.state", 0);
    return 0;
}
