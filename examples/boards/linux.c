/* A Linux program that needs no library, for RISC-V, AArch64 and ARM; main.c runs on a core without
 * multiplier: qemu-riscv32 -cpu rv32,m=false riscv32.elf < images.bin > logits.bin
 */
#include "board.h"

#if defined(__arm__)
enum { READ = 3, WRITE = 4, EXIT = 1 };
#else
enum { READ = 63, WRITE = 64, EXIT = 93 };
#endif

#if defined(__riscv)
#define CALL "call "
#define TRAP "ecall"
#define FIRST "a0"
#define SECOND "a1"
#define THIRD "a2"
#define NUMBER "a7"
#elif defined(__arm__)
__asm__(".thumb_func");
#define CALL "bl "
#define TRAP "svc 0"
#define FIRST "r0"
#define SECOND "r1"
#define THIRD "r2"
#define NUMBER "r7"
#else
#define CALL "bl "
#define TRAP "svc 0"
#define FIRST "x0"
#define SECOND "x1"
#define THIRD "x2"
#define NUMBER "x8"
#endif

__asm__(".globl _start\n_start:\n  " CALL "main\n  " CALL "board_exit\n");

static long linux(long number, long file, const void *data, unsigned long bytes)
{
    register long first __asm__(FIRST) = file;
    register const void *second __asm__(SECOND) = data;
    register unsigned long third __asm__(THIRD) = bytes;
    register long called __asm__(NUMBER) = number;
    __asm__ volatile(TRAP : "+r"(first) : "r"(second), "r"(third), "r"(called) : "memory");
    return first;
}

int board_read(void *data, uint32_t bytes)
{
    uint8_t *at = data;
    while (bytes > 0) {
        long count = linux(READ, 0, at, bytes); /* a pipe may give less */
        if (count <= 0)
            return 0;
        at += count;
        bytes -= (uint32_t)count;
    }
    return 1;
}

int board_write(const void *data, uint32_t bytes)
{
    return linux(WRITE, 1, data, bytes) == (long)bytes;
}

uint32_t board_ticks(void)
{
    return 0;
}

_Noreturn void board_exit(int status)
{
    for (;;)
        linux(EXIT, status, 0, 0);
}
