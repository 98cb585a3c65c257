// What a program asks of the operating system, and the engine of the operating system: traps, address spaces, copies.
#define _GNU_SOURCE
#include "kernels.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static uint8_t *map(size_t bytes)
{
    uint8_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    need(memory != MAP_FAILED, "mmap");
    return memory;
}

static void need_end_of(pid_t child)
{
    int status;

    need(waitpid(child, &status, 0) == child && status == 0, "child");
}

// The C library's memcpy, 64 KiB at a time, at each offset from a word.
uint64_t copy(void)
{
    enum { BYTES = 1 << 16, ROUNDS = 40000 };
    uint8_t *from = need_memory(BYTES + 64), *to = need_memory(BYTES + 64);
    uint64_t state = 6, sum = 0;

    for (size_t i = 0; i < BYTES + 64; i++)
        from[i] = (uint8_t)next_random(&state);
    for (size_t round = 0; round < ROUNDS; round++) {
        // Three of four copies are aligned, as most are.
        size_t offset = round % 4 ? 0 : (round / 4) % 8;

        memcpy(to, from + offset, BYTES);
        sum = mix(sum, to[round * 13 % BYTES]);
    }
    free(from);
    free(to);
    return sum;
}

uint64_t syscalls(void)
{
    enum { CALLS = 400000 };
    long self = getppid();
    uint64_t same = 0;

    for (int i = 0; i < CALLS; i++)
        same += syscall(SYS_getppid) == self;
    return same;
}

// Each page of a fresh mapping, touched once.
uint64_t pagefaults(void)
{
    enum { PAGES = 4096, ROUNDS = 4 };
    size_t page = page_bytes();
    uint64_t sum = 0;

    for (uint64_t round = 0; round < ROUNDS; round++) {
        uint8_t *memory = map(PAGES * page);

        need(madvise(memory, PAGES * page, MADV_NOHUGEPAGE) == 0, "madvise");
        for (size_t i = 0; i < PAGES; i++)
            memory[i * page] = (uint8_t)(i + round);
        for (size_t i = 0; i < PAGES; i++)
            sum = mix(sum, memory[i * page]);
        need(munmap(memory, PAGES * page) == 0, "munmap");
    }
    return sum;
}

// Two processes hand each other a token through two pipes: each turn is a sleep, a wake-up and a switch of address spaces.
uint64_t context(void)
{
    enum { TURNS = 3000 };
    int there[2], back[2];
    uint64_t token = 7;
    pid_t child;

    need(pipe(there) == 0 && pipe(back) == 0, "pipe");
    child = fork();
    need(child >= 0, "fork");
    if (child == 0) {
        for (int turn = 0; turn < TURNS; turn++) {
            need(read(there[0], &token, sizeof token) == sizeof token, "read");
            token = mix(token, 1);
            need(write(back[1], &token, sizeof token) == sizeof token, "write");
        }
        _exit(0);
    }
    for (int turn = 0; turn < TURNS; turn++) {
        need(write(there[1], &token, sizeof token) == sizeof token, "write");
        need(read(back[0], &token, sizeof token) == sizeof token, "read");
    }
    need_end_of(child);
    return token;
}

// Data through a pipe, from one process to another.
uint64_t piped(void)
{
    enum { BYTES = 1 << 16, BLOCKS = 1200, SAMPLE = 4096 };
    uint8_t *block = need_memory(BYTES);
    uint64_t sum = 0, total = 0;
    int ends[2];
    pid_t child;

    need(pipe(ends) == 0, "pipe");
    child = fork();
    need(child >= 0, "fork");
    if (child == 0) {
        uint64_t state = 8;

        for (int i = 0; i < BLOCKS; i++) {
            for (size_t at = 0; at < BYTES; at += SAMPLE)
                block[at] = (uint8_t)next_random(&state);
            need(write(ends[1], block, BYTES) == BYTES, "write");
        }
        _exit(0);
    }
    close(ends[1]);
    for (ssize_t got; (got = read(ends[0], block, BYTES)) > 0; total += (uint64_t)got)
        for (size_t at = (size_t)(-total % SAMPLE); at < (size_t)got; at += SAMPLE) // however the stream was cut
            sum = mix(sum, block[at]);
    need_end_of(child);
    free(block);
    return sum;
}

uint64_t forkexec(void)
{
    enum { TIMES = 150 };
    uint64_t ended = 0;

    for (int i = 0; i < TIMES; i++, ended++) {
        pid_t child = fork();

        need(child >= 0, "fork");
        if (child == 0) {
            execl(program_path, program_path, JUST_END, (char *)NULL);
            _exit(1);
        }
        need_end_of(child);
    }
    return ended;
}

// Small mappings that come and go: the cost is in the page tables and in telling the TLBs.
uint64_t mapping(void)
{
    enum { TIMES = 4000 };
    size_t page = page_bytes();
    uint64_t sum = 0;

    for (uint64_t i = 0; i < TIMES; i++) {
        uint8_t *memory = map(4 * page);

        memory[page] = (uint8_t)i;
        sum = mix(sum, memory[page]);
        need(munmap(memory, 4 * page) == 0, "munmap");
    }
    return sum;
}

// A file in the page cache, 4 KiB at a time.
uint64_t fileread(void)
{
    enum { BYTES = 4096, BLOCKS = 1024, ROUNDS = 20 };
    char path[] = "bench-file-XXXXXX";
    uint8_t *block = need_memory(BYTES);
    uint64_t state = 9, sum = 0;
    int file = mkstemp(path);

    need(file >= 0, path);
    unlink(path);
    for (int i = 0; i < BLOCKS; i++) {
        for (size_t at = 0; at < BYTES; at += 64)
            block[at] = (uint8_t)next_random(&state);
        need(write(file, block, BYTES) == BYTES, "write");
    }
    for (int round = 0; round < ROUNDS; round++) {
        need(lseek(file, 0, SEEK_SET) == 0, "seek");
        for (int i = 0; i < BLOCKS; i++) {
            need(read(file, block, BYTES) == BYTES, "read");
            sum = mix(sum, block[(i & 63) * 64]);
        }
    }
    close(file);
    free(block);
    return sum;
}
