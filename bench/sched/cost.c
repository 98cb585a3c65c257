// What a scheduler costs the CPU, for each request: enqueue, next, complete, in simulated time, so that nothing else is measured.
// Disks are kept backlogged; the device completes in order, 64 requests deep.
//
// Usage: sched_cost SCHEDULER DISKS weights|terms   prints nanoseconds a request
#include "base/clock.h"
#include "store/sched/dispatch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEVICE 64u
#define WAITING 64u // at least, of all disks; of 8 requests a disk at least
#define REQUESTS 4000000u
#define REQUEST_NS 2000u // a device of 500,000 requests/s

struct bench {
    struct dispatcher *d;
    unsigned n_disks, per_disk;
    struct dispatch_queue **queues;
    struct dispatch_item *items, *device[DEVICE];
    uint64_t now_ns, random;
};

static void enqueue(struct bench *b, struct dispatch_item *item, struct dispatch_queue *queue)
{
    b->random = b->random * 6364136223846793005ull + 1442695040888963407ull;
    item->kind = b->random >> 63 ? DISPATCH_READ : DISPATCH_WRITE;
    item->offset_bytes = b->random >> 20 & ~4095ull;
    item->len_bytes = 4096;
    item->enqueued_ns = b->now_ns;
    b->d->ops->enqueue(b->d, queue, item);
}

// With "terms" each disk has a reservation, a limit that seldom holds it back, and every eighth a promised latency.
static void set_terms(struct bench *b, unsigned disk)
{
    uint64_t fair = NS_PER_S / REQUEST_NS / b->n_disks;
    struct dispatch_terms terms = {.weight = 1 + disk % 200};
    terms.reserve.ops_per_s = fair / 2 + 1;
    terms.limit.ops_per_s = fair * 4;
    struct tv_error err = {0};
    if (disk % 8 == 0 && !strcmp(b->d->ops->name, "oios")) {
        terms.latency_ns = 20 * NS_PER_MS;
        terms.latency_permille = 990;
    }
    if (b->d->ops->queue_set(b->d, b->queues[disk], &terms, 0, &err)) {
        fprintf(stderr, "sched_cost: %s\n", err.text);
        exit(2);
    }
}

static void fill(struct bench *b, bool terms)
{
    struct tv_error err = {0};
    b->queues = calloc(b->n_disks, sizeof(struct dispatch_queue *));
    b->items = calloc((size_t)b->n_disks * b->per_disk, sizeof(*b->items));
    if (!b->queues || !b->items)
        exit(2);
    for (unsigned i = 0; i < b->n_disks; i++) {
        b->queues[i] = b->d->ops->queue_add(b->d, "disk", &err);
        if (!b->queues[i])
            exit(2);
        if (terms)
            set_terms(b, i);
        for (unsigned k = 0; k < b->per_disk; k++)
            enqueue(b, &b->items[i * b->per_disk + k], b->queues[i]);
    }
}

static void take(struct bench *b, unsigned slot)
{
    b->device[slot] = b->d->ops->next(b->d, b->now_ns);
    if (b->device[slot])
        b->device[slot]->dispatched_ns = b->now_ns;
}

static unsigned run(struct bench *b)
{
    unsigned done = 0;
    for (unsigned i = 0; done < REQUESTS; i++) {
        struct dispatch_item *item = b->device[i % DEVICE];
        b->now_ns += REQUEST_NS;
        if (item) {
            b->d->ops->complete(b->d, item, b->now_ns);
            enqueue(b, item, item->queue);
            done++;
        }
        take(b, i % DEVICE);
    }
    return done;
}

int main(int argc, char **argv)
{
    const struct dispatch_ops *ops = argc == 4 ? dispatch_find(argv[1]) : NULL;
    struct bench b = {.n_disks = argc == 4 ? (unsigned)atoi(argv[2]) : 0, .random = 1, .now_ns = 1};
    if (!ops || !b.n_disks) {
        fprintf(stderr, "usage: sched_cost %s DISKS weights|terms\n", dispatch_names);
        return 2;
    }
    b.per_disk = (DEVICE + WAITING) / b.n_disks > 8 ? (DEVICE + WAITING) / b.n_disks : 8;
    struct tv_error err = {0};
    struct dispatch_config config = {.window = DEVICE};
    b.d = ops->create(&config, &err);
    if (!b.d)
        return 2;
    fill(&b, !strcmp(argv[3], "terms"));
    for (unsigned i = 0; i < DEVICE; i++)
        take(&b, i);
    run(&b); // warm: costs are learned, caches filled
    uint64_t start_ns = clock_now_ns();
    unsigned done = run(&b);
    printf("%.2f\n", (double)(clock_now_ns() - start_ns) / done);
    return 0; // queues are not empty: the process ends with them
}
