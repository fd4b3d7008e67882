/* Cortex-M: vector table, start, and files of the host by semihosting, which QEMU and debuggers
 * serve: images.bin and logits.bin. The boards differ in their clocks and memory maps:
 *
 *     microbit   BBC micro:bit (nRF51822: Cortex-M0, 256 KB of flash, 16 KB of RAM)
 *     mps2       Arm MPS2 with the image AN386 (Cortex-M4 with a float unit)
 *     mps3       Arm MPS3 with the image AN547 (Cortex-M55)
 *
 * Semihosting: https://github.com/ARM-software/abi-aa/blob/main/semihosting/semihosting.rst
 * Timers: nRF51 Series Reference Manual, chapter 18; Cortex-M System Design Kit Technical Reference
 * Manual, section 3.5; SysTick: Armv8-M Architecture Reference Manual, B11.
 */
#include "board.h"

enum { SYS_OPEN = 0x01, SYS_WRITE = 0x05, SYS_READ = 0x06, SYS_EXIT = 0x18 };
enum { READ_BINARY = 1, WRITE_BINARY = 5 };
enum { EXIT_DONE = 0x20026, EXIT_FAILED = 0x20024 };

#define REGISTER(address) (*(volatile uint32_t *)(address))
#ifdef MPS2
enum { TIMER0 = 0x40000000, CONTROL = TIMER0, VALUE = TIMER0 + 4, RELOAD = TIMER0 + 8 };
enum { START = 1 };
#define MOST UINT32_MAX
#elif defined(MPS3)
#define CONTROL 0xE000E010u /* SysTick, of 24 bits */
#define RELOAD 0xE000E014u
#define VALUE 0xE000E018u
enum { START = 5 }; /* by the clock of the processor */
#define MOST 0xFFFFFFu
#else
enum { TIMER0 = 0x40008000, START = TIMER0, CAPTURE0 = TIMER0 + 0x040 };
enum { BITMODE = TIMER0 + 0x508, PRESCALER = TIMER0 + 0x510, CC0 = TIMER0 + 0x540 };
#endif

extern uint32_t stack_top[], bss_start[], bss_end[]; /* cortexm.ld */
static uint32_t input, output;

static uint32_t host(uint32_t operation, uint32_t argument)
{
    register uint32_t r0 __asm__("r0") = operation;
    register uint32_t r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static uint32_t opened(const char *name, uint32_t length, uint32_t mode)
{
    uint32_t block[3] = {(uint32_t)name, mode, length};
    uint32_t file = host(SYS_OPEN, (uint32_t)block);
    if (file == UINT32_MAX)
        board_exit(1);
    return file;
}

int board_read(void *data, uint32_t bytes)
{
    uint32_t block[3] = {input, (uint32_t)data, bytes};
    return host(SYS_READ, (uint32_t)block) == 0; /* bytes that are missing */
}

int board_write(const void *data, uint32_t bytes)
{
    uint32_t block[3] = {output, (uint32_t)data, bytes};
    return host(SYS_WRITE, (uint32_t)block) == 0;
}

#ifdef MOST
static void start_clock(void)
{
    REGISTER(RELOAD) = MOST;
    REGISTER(VALUE) = MOST;
    REGISTER(CONTROL) = START;
}

uint32_t board_ticks(void) /* of 40 ns, or of 31.25 ns on mps3 */
{
    static uint32_t total, last;
    uint32_t now = MOST - REGISTER(VALUE); /* it counts down */
    total += (now - last) & MOST;
    last = now;
    return total;
}
#else
static void start_clock(void)
{
    REGISTER(BITMODE) = 3; /* 32 bits */
    REGISTER(PRESCALER) = 0;
    REGISTER(START) = 1;
}

uint32_t board_ticks(void) /* of 62.5 ns */
{
    REGISTER(CAPTURE0) = 1;
    return REGISTER(CC0);
}
#endif

_Noreturn void board_exit(int status)
{
    host(SYS_EXIT, status ? EXIT_FAILED : EXIT_DONE);
    for (;;)
        ;
}

void reset(void);

void reset(void)
{
    for (volatile uint32_t *word = bss_start; word < bss_end; word++)
        *word = 0;
#if defined(__ARM_FP) || defined(MPS3)
    REGISTER(0xE000ED88u) |= 0xFu << 20; /* CPACR: floats and vectors may be used */
    __asm__ volatile("dsb\n  isb" ::: "memory");
#endif
    start_clock();
    input = opened("images.bin", 10, READ_BINARY);
    output = opened("logits.bin", 10, WRITE_BINARY);
    board_exit(main());
}

static void fault(void)
{
    board_exit(1);
}

__attribute__((section(".vectors"), used)) static void *const vectors[16] = {
    stack_top, (void *)reset, (void *)fault, (void *)fault, /* NMI, hard fault */
};
