// A hostile guest at the x86-64 board: fuzz_board.c, with the ports.
#define FUZZ_BOARD_PC
#include "fuzz_board.c"
