/* What main.c asks of a board. */
#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

int main(void);

/* 1 if all bytes were read, 0 at the end. */
int board_read(void *data, uint32_t bytes);

/* 1 if all bytes were written. */
int board_write(const void *data, uint32_t bytes);

/* A clock of the board, 0 where it has none. */
uint32_t board_ticks(void);

/* Ends the program. */
_Noreturn void board_exit(int status);

#endif
