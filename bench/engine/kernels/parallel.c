// Several harts at once: work that is shared out, and a lock that all of them want.
#include "kernels.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { WORDS = 1 << 12, CHUNKS = 300000, TURNS = 4000000, MOST_THREADS = 4 };

static uint64_t *words;
static atomic_ulong next_chunk, total;

// Takes chunks while there are any, so that a hart that is slow for a while holds up nobody.
static void *sum_chunks(void *unused)
{
    uint64_t sum = 0;

    (void)unused;
    for (uint64_t chunk; (chunk = atomic_fetch_add(&next_chunk, 1)) < CHUNKS;)
        for (size_t i = 0; i < WORDS; i++)
            sum += words[i] ^ chunk;
    atomic_fetch_add(&total, sum);
    return NULL;
}

static void run_threads(int count, void *(*work)(void *), void *argument)
{
    pthread_t threads[MOST_THREADS];

    for (int i = 0; i < count; i++)
        need(pthread_create(&threads[i], NULL, work, argument) == 0, "thread");
    for (int i = 0; i < count; i++)
        need(pthread_join(threads[i], NULL) == 0, "thread");
}

static uint64_t sum_by(int count)
{
    uint64_t state = 10;

    words = need_memory(WORDS * sizeof *words);
    for (size_t i = 0; i < WORDS; i++)
        words[i] = next_random(&state);
    run_threads(count, sum_chunks, NULL);
    free(words);
    return total;
}

uint64_t sum_by_1(void)
{
    return sum_by(1);
}
uint64_t sum_by_2(void)
{
    return sum_by(2);
}
uint64_t sum_by_4(void)
{
    return sum_by(4);
}

static struct {
    pthread_mutex_t lock;
    uint64_t turns, value; // under the lock
} shared = {.lock = PTHREAD_MUTEX_INITIALIZER, .value = 1};

static void *take_turns(void *unused)
{
    int more = 1;

    (void)unused;
    while (more) {
        pthread_mutex_lock(&shared.lock);
        more = shared.turns < TURNS;
        if (more) {
            shared.turns++;
            shared.value = mix(shared.value, shared.turns);
        }
        pthread_mutex_unlock(&shared.lock);
    }
    return NULL;
}

static uint64_t lock_by(int count)
{
    run_threads(count, take_turns, NULL);
    return shared.value;
}

uint64_t lock_by_2(void)
{
    return lock_by(2);
}
uint64_t lock_by_4(void)
{
    return lock_by(4);
}
