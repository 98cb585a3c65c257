// What trivet top shows: command/top.c reads, top_table.c prints. Lists as of look.h, with rates. Private to the two.
#pragma once

#include <jansson.h>

#define TOP_NAME_MAX 128

void top_print_machines(const json_t *machines);
void top_print_disks(const json_t *machines);
