// Plain integer loops.
#include "kernels.h"

#include <stdlib.h>
#include <string.h>

static uint8_t *random_bytes(size_t count)
{
    uint8_t *bytes = need_memory(count);
    uint64_t state = count;

    for (size_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)next_random(&state);
    return bytes;
}

// CRC-32 (reflected 0xedb88320), a byte and a table look-up at a time.
uint64_t crc(void)
{
    enum { BYTES = 1 << 18, ROUNDS = 200 };
    uint32_t table[256], value = ~0u;
    uint8_t *bytes = random_bytes(BYTES);

    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++)
            table[i] = (table[i] >> 1) ^ (table[i] & 1 ? 0xedb88320u : 0);
    }
    for (int round = 0; round < ROUNDS; round++)
        for (size_t i = 0; i < BYTES; i++)
            value = (value >> 8) ^ table[(value ^ bytes[i]) & 0xff];
    free(bytes);
    return value;
}

static uint32_t rotated(uint32_t value, int by)
{
    return (value >> by) | (value << (32 - by));
}

// FIPS 180-4, section 6.2.2, with its names.
static void sha256_block(uint32_t state[static 8], const uint32_t k[static 64], const uint8_t *block)
{
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7], w[64];

    for (int t = 0; t < 16; t++)
        w[t] = (uint32_t)block[4 * t] << 24 | (uint32_t)block[4 * t + 1] << 16 | (uint32_t)block[4 * t + 2] << 8 | block[4 * t + 3];
    for (int t = 16; t < 64; t++) {
        uint32_t s0 = rotated(w[t - 15], 7) ^ rotated(w[t - 15], 18) ^ (w[t - 15] >> 3);
        uint32_t s1 = rotated(w[t - 2], 17) ^ rotated(w[t - 2], 19) ^ (w[t - 2] >> 10);

        w[t] = w[t - 16] + s0 + w[t - 7] + s1;
    }
    for (int t = 0; t < 64; t++) {
        uint32_t s1 = rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25), t1 = h + s1 + ((e & f) ^ (~e & g)) + k[t] + w[t];
        uint32_t s0 = rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22), t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));

        h = g;
        g = f;
        f = e;
        e = d + t1;
        d = c;
        c = b;
        b = a;
        a = t1 + t2;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
}

// SHA-256's compression; its constants come from a generator, which is as much work.
uint64_t sha(void)
{
    enum { BYTES = 1 << 18, ROUNDS = 60 };
    uint32_t state[8] = {1, 2, 3, 4, 5, 6, 7, 8}, k[64];
    uint64_t seed = 256;
    uint8_t *bytes = random_bytes(BYTES);

    for (int t = 0; t < 64; t++)
        k[t] = (uint32_t)next_random(&seed);
    for (int round = 0; round < ROUNDS; round++)
        for (size_t at = 0; at < BYTES; at += 64)
            sha256_block(state, k, bytes + at);
    free(bytes);
    return (uint64_t)state[0] << 32 | state[7];
}

uint64_t sieve(void)
{
    enum { LIMIT = 1 << 20, ROUNDS = 50 };
    uint8_t *composite = need_memory(LIMIT);
    uint64_t primes = 0;

    for (int round = 0; round < ROUNDS; round++) {
        memset(composite, 0, LIMIT);
        for (size_t i = 2; i < LIMIT; i++) {
            if (composite[i])
                continue;
            primes++;
            for (size_t j = i * i; j < LIMIT; j += i)
                composite[j] = 1;
        }
    }
    free(composite);
    return primes;
}

struct node {
    struct node *next;
    uint64_t value;
    uint64_t unused[6]; // a node a cache line
};

// Pointers followed in an order that no prefetcher foresees, through more memory than a first-level cache or a small TLB covers.
uint64_t list(void)
{
    enum { NODES = 1 << 14, ROUNDS = 2000 };
    struct node *nodes = need_memory(NODES * sizeof *nodes), *at = nodes;
    uint64_t state = 1, sum = 0;

    for (size_t i = 0; i < NODES; i++)
        nodes[i] = (struct node){.next = nodes + i, .value = i};
    for (size_t i = NODES - 1; i > 0; i--) { // Sattolo: one cycle through all
        size_t other = next_random(&state) % i;
        struct node *next = nodes[i].next;

        nodes[i].next = nodes[other].next;
        nodes[other].next = next;
    }
    for (size_t i = 0; i < (size_t)NODES * ROUNDS; i++, at = at->next)
        sum += at->value;
    free(nodes);
    return sum;
}

static int by_value(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

    return (left > right) - (left < right);
}

// The C library's qsort: an indirect call for each comparison.
uint64_t sort(void)
{
    enum { COUNT = 1 << 16, ROUNDS = 16 };
    uint32_t *values = need_memory(COUNT * sizeof *values);
    uint64_t state = 2, sum = 0;

    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < COUNT; i++)
            values[i] = (uint32_t)next_random(&state);
        qsort(values, COUNT, sizeof *values, by_value);
        for (size_t i = 0; i < COUNT; i += 97)
            sum = mix(sum, values[i]);
    }
    free(values);
    return sum;
}
