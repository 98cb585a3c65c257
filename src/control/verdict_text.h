// A verdict of the store's on a promise, in the words of the tables.
#pragma once

#include <jansson.h>

struct verdict_text {
    char achieved[32], goal[32], since[32], verdict[48], who[160];
};

void verdict_format(const json_t *verdict, struct verdict_text *text); // one of disk.stat's
