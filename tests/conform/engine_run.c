// Runs an image on the engine alone: one vcpu, RAM at 0x80000000, the SBI console on standard output. For the differential test,
// which thereby needs no more of the machine than what it tests.
//
// engine_run --small|--full|--audit IMAGE: everything is translated, so that it is small or fast, or both and compared with the
// interpreter. Exit status 0 when the guest shuts down, 1 when it fails, 2 for a wrong call.
#include "machine/board/virt/map.h"
#include "machine/engine/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RAM_BYTES (64ull << 20)
#define IMAGE_ADDR (MAP_RAM_BASE + 0x200000)

static int no_mmio_read(void *arg, uint64_t gpa, unsigned size, uint64_t *value)
{
    (void)arg, (void)gpa, (void)size, (void)value;
    return -ENXIO;
}

static int no_mmio_write(void *arg, uint64_t gpa, unsigned size, uint64_t value)
{
    (void)arg, (void)gpa, (void)size, (void)value;
    return -ENXIO;
}

static void console_write(void *arg, const uint8_t *buf, size_t len_bytes)
{
    (void)arg;
    fwrite(buf, 1, len_bytes, stdout);
}

static size_t console_read(void *arg, uint8_t *buf, size_t len_bytes)
{
    (void)arg, (void)buf, (void)len_bytes;
    return 0;
}

static int load(const struct guest_memory *mem, const char *path, struct tv_error *err)
{
    FILE *f = fopen(path, "rb");
    uint8_t *ram = guest_memory_view(mem, IMAGE_ADDR, RAM_BYTES - 0x200000);
    size_t n;

    if (!f)
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    n = fread(ram, 1, RAM_BYTES - 0x200000, f);
    fclose(f);
    return n > 0 ? 0 : tv_error_set(err, -EINVAL, "%s: empty", path);
}

static int run(const char *path, bool audit, enum engine_translate translate, struct tv_error *err)
{
    struct guest_memory mem;
    struct engine_config config = {
        .mem = &mem,
        .n_vcpus = 1,
        .imsic_base = MAP_IMSIC_BASE,
        .audit_instructions = audit ? UINT64_MAX : 0,
        .translate = translate,
        .host = {
            .mmio_read = no_mmio_read, .mmio_write = no_mmio_write, .console_write = console_write, .console_read = console_read}};
    struct engine *e;
    enum engine_exit exit;
    int fd, r;

    guest_memory_init(&mem);
    fd = guest_ram_create("engine_run", RAM_BYTES, err);
    if (fd < 0)
        return fd;
    r = guest_memory_add(&mem, MAP_RAM_BASE, RAM_BYTES, fd, 0, 0, err);
    if (r == 0)
        r = load(&mem, path, err);
    if (r < 0)
        return r;
    e = engine_rv64.create(&config, err);
    if (!e)
        return -EINVAL;
    engine_rv64.reset(e, &(struct engine_start){.entry = IMAGE_ADDR});
    engine_rv64.clock_start(e);
    do
        exit = engine_rv64.run(e, 0);
    while (exit == ENGINE_EXIT_KICK);
    if (exit != ENGINE_EXIT_SHUTDOWN)
        fprintf(stderr, "engine_run: %s\n", engine_rv64.failure(e));
    if (audit)
        fputs(engine_rv64.report(e), stderr);
    engine_rv64.destroy(e);
    guest_memory_fini(&mem);
    return exit != ENGINE_EXIT_SHUTDOWN;
}

int main(int argc, char **argv)
{
    struct tv_error err = {0};
    int r;

    bool audit = argc == 3 && strcmp(argv[1], "--audit") == 0, small = argc == 3 && strcmp(argv[1], "--small") == 0;
    if (argc != 3 || !(audit || small || strcmp(argv[1], "--full") == 0)) {
        fprintf(stderr, "usage: engine_run --small|--full|--audit IMAGE\n");
        return 2;
    }
    r = run(argv[2], audit, audit ? ENGINE_TRANSLATE_BY_USE : small ? ENGINE_TRANSLATE_SMALL : ENGINE_TRANSLATE_FULL, &err);
    if (r < 0)
        fprintf(stderr, "engine_run: %s\n", err.text);
    return r < 0 ? 2 : r;
}
