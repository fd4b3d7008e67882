/* Reads images of the digits network, one after another, and writes its logits and the ticks that
 * each took: int32_t[10], uint32_t. It needs no library, and no memory but what stands here.
 *
 *     addergraph compile q.safetensors -o build --name digits --target thumbv6m
 *     make -C examples/boards ../../build/microbit.elf
 *
 * For a library of another name change `digits` and `DIGITS`.
 */
#include "board.h"
#include "digits.h"

struct result {
    int32_t logits[DIGITS_OUTPUT_ELEMENTS];
    uint32_t ticks;
};

static uint8_t arena[DIGITS_ARENA_BYTES] __attribute__((aligned(DIGITS_ARENA_ALIGN)));
static uint8_t image[DIGITS_INPUT_ELEMENTS];
static struct result result;

int main(void)
{
    if (digits_selftest(arena) != DIGITS_OK)
        return 2;
    while (board_read(image, sizeof image)) {
        uint32_t before = board_ticks();
        if (digits_run(image, result.logits, arena) != DIGITS_OK)
            return 3;
        result.ticks = board_ticks() - before;
        if (!board_write(&result, sizeof result))
            return 4;
    }
    return 0;
}
