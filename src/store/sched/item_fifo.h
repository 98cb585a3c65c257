// A line of requests, first in first out, through their links. Private to the schedulers.
#pragma once

#include "store/sched/dispatch.h"

#include <stddef.h>

struct item_fifo {
    struct dispatch_item *head, *last; // last: garbage while head is NULL
};

static inline void item_fifo_push(struct item_fifo *f, struct dispatch_item *item)
{
    item->link = NULL;
    if (f->head)
        f->last->link = item;
    else
        f->head = item;
    f->last = item;
}

// It is not empty.
static inline struct dispatch_item *item_fifo_pop(struct item_fifo *f)
{
    struct dispatch_item *item = f->head;
    f->head = item->link;
    return item;
}
