// Polling: a front end that had something to do is looked at again and again for a while, and its client need not tell us. It
// costs the CPU, and saves a system call and a wake-up on both sides. See store_config.poll_us.
#include "store/disk.h"

#include "base/clock.h"

// False: it has nothing to do, and its client tells from now on.
static bool stays_hot(struct disk_front *front, uint64_t now_ns)
{
    if (front->ops->poll(front) || now_ns < front->hot_until_ns)
        return true;
    const bool was_late = front->ops->set_kicks(front, true);
    if (was_late)
        front->ops->set_kicks(front, false);
    return was_late;
}

static void on_poll(void *arg)
{
    struct store *store = arg;
    const uint64_t now_ns = clock_now_ns();
    for (struct disk_front **at = &store->hot, *front; (front = *at);) {
        if (stays_hot(front, now_ns)) {
            at = &front->next_hot;
            continue;
        }
        *at = front->next_hot;
        front->is_hot = false;
    }
    io_poll(store->io);
    if (store->hot)
        return;
    loop_set_poll(store->loop, NULL, NULL);
    io_set_polled(store->io, false);
    io_poll(store->io);
}

void store_heat(struct disk_front *front)
{
    struct store *store = front->disk->store;
    if (!store->poll_ns || !front->ops->poll)
        return;
    front->hot_until_ns = store_now_ns(store) + store->poll_ns;
    if (front->is_hot)
        return;
    front->is_hot = true;
    front->next_hot = store->hot;
    store->hot = front;
    front->ops->set_kicks(front, false);
    if (front->next_hot)
        return;
    io_set_polled(store->io, true);
    loop_set_poll(store->loop, on_poll, store);
}

void store_cool(struct disk_front *front)
{
    struct disk_front **at = &front->disk->store->hot;
    while (*at && *at != front)
        at = &(*at)->next_hot;
    if (*at)
        *at = front->next_hot;
    front->is_hot = false;
}
