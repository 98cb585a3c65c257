// What the files of the board itself share; private to this folder.
#pragma once

#include "machine/board/board.h"

const struct board_config *board_config(const struct board *board);
