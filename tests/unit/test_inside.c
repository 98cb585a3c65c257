// What the engine tells of its translated code: counters, and the files by which perf(1) names it; and little room for code.
//
// Argument: the guest evict, which runs more code than there is room for.
#include "engine_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine/engine/perf.h"

#define LITTLE_CODE (256u * 1024)
#define MUCH_CODE (16u << 20)

static struct engine_counters add_up(const struct machine *m)
{
    struct engine_counters all = {0};
    uint64_t *to = (uint64_t *)&all;
    for (unsigned i = 0; i < VCPUS; i++) {
        struct engine_counters one;
        m->engine->ops->counters(m->engine, i, &one);
        for (size_t w = 0; w < sizeof(one) / sizeof(uint64_t); w++)
            to[w] += ((const uint64_t *)&one)[w];
    }
    return all;
}

static uint64_t sum(const uint64_t *values, size_t n)
{
    uint64_t all = 0;
    while (n-- > 0)
        all += values[n];
    return all;
}

static void check_counters(const struct machine *m)
{
    struct engine_counters c = add_up(m);
    assert_true(c.instructions > 100000);
    assert_true(c.blocks_decoded > 6000);
    assert_true(c.insns_decoded > c.blocks_decoded);
    assert_true(c.insns_decoded < c.instructions);
    assert_true(c.code_fences >= 4 * 40 + 3 * 40);
    assert_true(c.hypercalls >= 3 + 40);
    assert_int_equal(sum(c.trap_causes, ENGINE_TRAP_CAUSES), c.traps);
    assert_true(c.tlb_misses > 0);
    assert_int_equal(c.page_walks, 0); // the guest has no page tables
}

static void check_translator_counters(const struct machine *m)
{
    struct engine_counters c = add_up(m);
    assert_true(c.links > 0 && c.links < c.blocks_decoded * 2);
    assert_true(c.jump_misses > 0);
    assert_true(c.steps > 0);
    assert_true(sum(c.left, ENGINE_LEFT_CAUSES) > 0);
    assert_true(c.left[ENGINE_LEFT_FULL] > 0);
    assert_true(c.left[ENGINE_LEFT_WFI] <= c.wfi);
}

static void test_little_room(void **state)
{
    struct machine m;
    struct engine_code code;
    machine_init_with(&m, &(struct engine_config){.code_bytes = LITTLE_CODE});
    run_guest(&m, *state);
    m.engine->ops->code(m.engine, &code);
    check_counters(&m);
    if (code.room_bytes) { // there is a translator
        assert_int_equal(code.room_bytes, LITTLE_CODE);
        assert_in_range(code.used_bytes, 1, LITTLE_CODE);
        assert_true(code.thrown_away > 10);
        check_translator_counters(&m);
    }
    machine_fini(&m);
}

static void test_much_room(void **state)
{
    struct machine m;
    struct engine_code code;
    machine_init_with(&m, &(struct engine_config){.code_bytes = MUCH_CODE});
    run_guest(&m, *state);
    m.engine->ops->code(m.engine, &code);
    assert_int_equal(code.thrown_away, 0);
    assert_int_equal(add_up(&m).left[ENGINE_LEFT_FULL], 0);
    machine_fini(&m);
}

// --- perf's files

struct range {
    uint64_t start, end;
};

// Where translated code is executed: shared anonymous memory is shown as a file of that name.
static struct range executable(void)
{
    char line[512];
    struct range r = {0, 0};
    FILE *f = fopen("/proc/self/maps", "r");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        if (strstr(line, "/dev/zero") && strstr(line, " r-x"))
            assert_int_equal(sscanf(line, "%lx-%lx", &r.start, &r.end), 2);
    fclose(f);
    return r;
}

static char *read_back(int fd, size_t *len)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    *len = (size_t)st.st_size;
    char *text = calloc(1, *len + 1);
    assert_non_null(text);
    assert_int_equal(pread(fd, text, *len, 0), st.st_size);
    return text;
}

static bool is_block(const char *name)
{
    if (strncmp(name, "rv64_S_", 7) != 0 || strspn(name + 7, "0123456789abcdef") != 16)
        return false;
    return name[23] == 0 || strcmp(name + 23, "_small") == 0 || strcmp(name + 23, "_plain") == 0;
}

// Returns how many blocks it names.
static unsigned check_map(int fd)
{
    size_t len;
    char *text = read_back(fd, &len), *save = NULL, name[64];
    struct range code = executable();
    uint64_t end = code.start, start, bytes;
    unsigned blocks = 0, others = 0;
    assert_true(len > 0 && text[len - 1] == '\n');
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        int read = 0;
        assert_int_equal(sscanf(line, "%lx %lx %63s%n", &start, &bytes, name, &read), 3);
        assert_int_equal(line[read], 0);
        assert_true(start >= end && bytes > 0 && start + bytes <= code.end);
        end = start + bytes;
        if (is_block(name))
            blocks++;
        else
            others++;
    }
    assert_true(others > 8);
    free(text);
    return blocks;
}

static uint64_t number(const char *at, unsigned bytes)
{
    uint64_t value = 0;
    memcpy(&value, at, bytes);
    return value;
}

// By the offsets of the specification. Returns how many blocks were loaded.
static unsigned check_jitdump(int fd)
{
    size_t len;
    char *dump = read_back(fd, &len), *at = dump + 40;
    struct range code = executable();
    uint64_t time = number(dump + 24, 8), index = 0;
    unsigned blocks = 0;
    assert_true(len > 40);
    assert_int_equal(number(dump, 4), 0x4a695444);
    assert_int_equal(number(dump + 4, 4), 1);
    assert_int_equal(number(dump + 8, 4), 40);
    assert_int_equal(number(dump + 12, 4), EM_X86_64);
    assert_int_equal(number(dump + 20, 4), getpid());
    assert_int_equal(number(dump + 32, 8), 0);
    while (at < dump + len) {
        size_t size = number(at + 4, 4), name_len = strlen(at + 56);
        uint64_t addr = number(at + 32, 8), bytes = number(at + 40, 8);
        assert_int_equal(number(at, 4), 0); // JIT_CODE_LOAD
        assert_true(number(at + 8, 8) >= time);
        time = number(at + 8, 8);
        assert_int_equal(number(at + 16, 4), getpid());
        assert_int_equal(number(at + 24, 8), addr);
        assert_int_equal(number(at + 48, 8), index++);
        assert_int_equal(size, 56 + name_len + 1 + bytes);
        assert_true(at + size <= dump + len);
        assert_true(addr >= code.start && addr + bytes <= code.end);
        if (is_block(at + 56))
            blocks++;
        else // never changes
            assert_memory_equal(at + 56 + name_len + 1, (const void *)(uintptr_t)addr, bytes);
        at += size;
    }
    assert_ptr_equal(at, dump + len);
    free(dump);
    return blocks;
}

static void check_jitdump_ends(int fd)
{
    size_t len;
    char *dump = read_back(fd, &len);
    assert_int_equal(number(dump + len - 16, 4), 3); // JIT_CODE_CLOSE
    assert_int_equal(number(dump + len - 12, 4), 16);
    free(dump);
}

static void run_named(const char *path, size_t code_bytes, bool all_stays)
{
    struct machine m;
    struct perf *perf = NULL;
    struct tv_error err = {0};
    struct engine_code code;
    int map_fd = memfd_create("map", MFD_CLOEXEC), jitdump_fd = memfd_create("jitdump", MFD_CLOEXEC);
    assert_int_equal(perf_create(&perf, dup(map_fd), dup(jitdump_fd), &err), 0);
    machine_init_with(&m, &(struct engine_config){.code_bytes = code_bytes, .perf = perf});
    run_guest(&m, path);
    m.engine->ops->code(m.engine, &code);
    if (code.room_bytes) {
        unsigned named = check_map(map_fd), loaded = check_jitdump(jitdump_fd);
        assert_int_equal(loaded, add_up(&m).blocks_decoded);
        assert_true(all_stays ? named == loaded : named < loaded);
    }
    machine_fini(&m);
    perf_destroy(perf);
    if (code.room_bytes)
        check_jitdump_ends(jitdump_fd);
    close(map_fd);
    close(jitdump_fd);
}

static void test_names(void **state)
{
    run_named(*state, MUCH_CODE, true);
}

static void test_names_of_code_thrown_away(void **state)
{
    run_named(*state, LITTLE_CODE, false);
}

// A file that cannot be written (any more) costs the guest nothing; one that cannot be begun is said.
static void test_files_that_cannot_be_written(void **state)
{
    struct machine m;
    struct perf *perf = NULL;
    struct tv_error err = {0};
    int full = open("/dev/full", O_RDWR | O_CLOEXEC);
    assert_true(full >= 0);
    assert_int_equal(perf_create(&perf, -1, dup(full), &err), -ENOSPC);
    assert_non_null(strstr(err.text, "jitdump"));
    assert_int_equal(perf_create(&perf, full, -1, &err), 0);
    machine_init_with(&m, &(struct engine_config){.perf = perf});
    run_guest(&m, *state);
    machine_fini(&m);
    perf_destroy(perf);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_little_room, argv[1]),
        cmocka_unit_test_prestate(test_much_room, argv[1]),
        cmocka_unit_test_prestate(test_names, argv[1]),
        cmocka_unit_test_prestate(test_names_of_code_thrown_away, argv[1]),
        cmocka_unit_test_prestate(test_files_that_cannot_be_written, argv[1]),
    };
    return cmocka_run_group_tests_name("inside", tests, NULL, NULL);
}
