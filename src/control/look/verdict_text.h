// A verdict of the store's or the router's on a promise, in the words of the tables.
#pragma once

#include <jansson.h>

// hour, day: the part of the time in which something was owed and it was kept. who: of a broken one, who has what is lacking;
// last: the same, or when it was last broken.
struct verdict_text {
    char achieved[32], goal[32], since[32], verdict[48], hour[48], day[48], who[160], last[256];
};

void verdict_format(const json_t *verdict, struct verdict_text *text); // one of disk.stat's
