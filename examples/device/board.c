/* Learns on a board: reads batches of samples, makes a step of each, and writes its loss and the
 * ticks that it took; behind the last one the state. It needs no library but liblearn.a, and no
 * memory but what stands here.
 *
 *     python examples/device/export.py build --target thumbv7em-f32 --batch 4
 *     make -C examples/device BUILD=$PWD/build $PWD/build/board.elf
 *     cd build && cp train.bin images.bin
 *     qemu-system-arm -M mps2-an500 -icount shift=0 -nographic -monitor none -serial none \
 *         -semihosting-config enable=on,target=native -kernel board.elf
 *
 * That is a Cortex-M7. Batches are records as in train.bin, results go to logits.bin; the start of
 * the board is that of examples/boards. */
#include "board.h"
#include "learn.h"

static uint8_t state[LEARN_STATE_BYTES] __attribute__((aligned(LEARN_ARENA_ALIGN)));
static uint8_t arena[LEARN_ARENA_BYTES] __attribute__((aligned(LEARN_ARENA_ALIGN)));
static uint8_t pixels[LEARN_BATCH * LEARN_X_ELEMENTS];
static int32_t labels[LEARN_BATCH];

struct result {
    float loss;
    uint32_t ticks;
};

static int read_batch(void)
{
    for (uint32_t i = 0; i < LEARN_BATCH; i++) {
        if (!board_read(pixels + i * LEARN_X_ELEMENTS, LEARN_X_ELEMENTS))
            return 0;
        if (!board_read(&labels[i], sizeof labels[i]))
            return 0;
    }
    return 1;
}

int main(void)
{
    const float rate = 0.02f;
    if (learn_selftest(state, arena) != LEARN_OK)
        return 2;
    while (read_batch()) {
        struct result made;
        uint32_t before = board_ticks();
        if (learn_train(pixels, labels, &rate, &made.loss, state, arena) != LEARN_OK)
            return 3;
        made.ticks = board_ticks() - before;
        if (!board_write(&made, sizeof made))
            return 4;
    }
    /* Between steps the arena is free: the saved state goes through it. */
    _Static_assert(LEARN_SAVED_BYTES <= LEARN_ARENA_BYTES, "the arena has no room for it");
    if (learn_save(state, arena) != LEARN_OK)
        return 5;
    return board_write(arena, LEARN_SAVED_BYTES) ? 0 : 6;
}
