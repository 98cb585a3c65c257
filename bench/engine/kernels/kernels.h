// The kernels of `make bench-engine`: small programs that each lean on one thing a machine's engine has to do well. The same
// sources run in a guest of trivet, in a guest of QEMU and natively, and have to give the same checksum in each.
#pragma once

#include <stddef.h>
#include <stdint.h>

// A kernel does a fixed amount of work and returns a checksum of it. What goes wrong ends the program with a message (see need()).
typedef uint64_t kernel_run(void);

kernel_run crc, sha, sieve, list, sort;                                             // integer.c
kernel_run coremark;                                                                // coremark.c
kernel_run dhrystone;                                                               // dhrystone.c
kernel_run btree;                                                                   // btree.c
kernel_run gzip;                                                                    // gzip.c
kernel_run fib, dispatch, dispatch_long;                                            // calls.c
kernel_run matmul, nbody, mandelbrot;                                               // floating.c
kernel_run copy, syscalls, pagefaults, context, piped, forkexec, mapping, fileread; // system.c
kernel_run sum_by_1, sum_by_2, sum_by_4, lock_by_2, lock_by_4;                      // parallel.c

// What forkexec executes: this program with this argument, which makes it end at once.
extern const char *program_path;
#define JUST_END "just-end"

// Ends the program unless `held`, naming what failed and errno.
void need(int held, const char *what);
// Zeroed memory; never NULL.
void *need_memory(size_t bytes);

// A generator of test data (splitmix64), the same everywhere.
static inline uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

// Folds a value into a checksum.
static inline uint64_t mix(uint64_t sum, uint64_t value)
{
    return (sum ^ value) * 0x100000001b3u;
}
