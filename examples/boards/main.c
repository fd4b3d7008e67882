/* Reads images, one after another, and writes what a network makes of each and the ticks that it
 * took: an int32_t (of integers) or a float for each class, uint32_t. It needs no library, and no
 * memory but what stands here.
 *
 *     addergraph compile q.safetensors -o build --target thumbv6m
 *     make -C examples/boards ../../build/microbit.elf
 *
 * network.h is made by the Makefile: the names of the library, whatever it is called.
 */
#include "board.h"
#include "network.h"

struct result {
    NETWORK_OUTPUT logits[NETWORK_OUTPUT_ELEMENTS];
    uint32_t ticks;
};

static uint8_t arena[NETWORK_ARENA_BYTES] __attribute__((aligned(NETWORK_ARENA_ALIGN)));
static NETWORK_INPUT image[NETWORK_INPUT_ELEMENTS];
static struct result result;

int main(void)
{
    if (network_selftest(arena) != NETWORK_OK)
        return 2;
    while (board_read(image, sizeof image)) {
        uint32_t before = board_ticks();
        if (network_run(image, result.logits, arena) != NETWORK_OK)
            return 3;
        result.ticks = board_ticks() - before;
        if (!board_write(&result, sizeof result))
            return 4;
    }
    return 0;
}
