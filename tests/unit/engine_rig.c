// See engine_rig.h.
#include "engine_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>

// There is one register, at 0x10000000, that reads as 0x5a.
static int mmio_read(void *arg, uint64_t gpa, unsigned size, uint64_t *value)
{
    (void)arg;
    (void)size;
    *value = 0x5a;
    return gpa == 0x10000000 ? 0 : -ENXIO;
}

static int mmio_write(void *arg, uint64_t gpa, unsigned size, uint64_t value)
{
    (void)arg;
    (void)size;
    (void)value;
    return gpa == 0x10000000 ? 0 : -ENXIO;
}

static void console_write(void *arg, const uint8_t *buf, size_t len_bytes)
{
    (void)arg;
    fwrite(buf, 1, len_bytes, stdout);
}

static size_t console_read(void *arg, uint8_t *buf, size_t len_bytes)
{
    (void)arg;
    (void)buf;
    (void)len_bytes;
    return 0;
}

void machine_init_with(struct machine *m, const struct engine_config *more)
{
    struct tv_error err = {0};
    memset(m, 0, sizeof(*m));
    guest_memory_init(&m->mem);
    int fd = guest_ram_create("ram", RAM_BYTES, &err);
    assert_true(fd >= 0);
    assert_int_equal(guest_memory_add(&m->mem, RAM_BASE, RAM_BYTES, fd, 0, 0, &err), 0);
    m->ram = guest_memory_view(&m->mem, RAM_BASE, RAM_BYTES);
    const struct engine_ops *ops = engine_find("rv64", &err);
    assert_non_null(ops);
    struct engine_config config = *more;
    config.mem = &m->mem;
    config.n_vcpus = VCPUS;
    config.imsic_base = IMSIC_BASE;
    config.host = (struct engine_host){
        .mmio_read = mmio_read, .mmio_write = mmio_write, .console_write = console_write, .console_read = console_read};
    m->engine = ops->create(&config, &err);
    assert_non_null(m->engine);
    ops->reset(m->engine, &(struct engine_start){.entry = ENTRY});
}

void machine_init(struct machine *m)
{
    machine_init_with(m, &(struct engine_config){0});
}

void machine_fini(struct machine *m)
{
    m->engine->ops->destroy(m->engine);
    guest_memory_fini(&m->mem);
}

void *run_vcpu(void *arg)
{
    struct runner *r = arg;
    struct engine *e = r->m->engine;
    do
        r->m->exits[r->vcpu] = e->ops->run(e, r->vcpu);
    while (r->m->exits[r->vcpu] == ENGINE_EXIT_KICK);
    return NULL;
}

enum engine_exit run_all(struct machine *m)
{
    pthread_t threads[VCPUS];
    struct runner runners[VCPUS];
    m->engine->ops->clock_start(m->engine);
    for (unsigned i = 0; i < VCPUS; i++) {
        runners[i] = (struct runner){m, i};
        assert_int_equal(pthread_create(&threads[i], NULL, run_vcpu, &runners[i]), 0);
    }
    for (unsigned i = 0; i < VCPUS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 1; i < VCPUS; i++)
        assert_int_equal(m->exits[i], m->exits[0]);
    return m->exits[0];
}

void put_program(struct machine *m, const uint32_t *words, size_t len_bytes)
{
    memcpy(m->ram + (ENTRY - RAM_BASE), words, len_bytes);
}

void run_guest(struct machine *m, const char *path)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t len = fread(m->ram + (ENTRY - RAM_BASE), 1, (size_t)(RAM_BYTES - (ENTRY - RAM_BASE)), f);
    fclose(f);
    assert_true(len > 0);
    if (run_all(m) == ENGINE_EXIT_SHUTDOWN)
        return;
    for (unsigned i = 0; i < VCPUS; i++) {
        uint64_t x[32], pc;
        assert_int_equal(m->engine->ops->get_registers(m->engine, i, x, &pc), 0);
        print_error("%s: hart %u: pc %llx check %llu scause %llx sepc %llx stval %llx s10 %llx a0 %llx\n", path, i,
                    (unsigned long long)pc, (unsigned long long)x[3], (unsigned long long)x[13], (unsigned long long)x[14],
                    (unsigned long long)x[15], (unsigned long long)x[26], (unsigned long long)x[10]);
    }
    fail_msg("%s failed: %s", path, m->engine->ops->failure(m->engine));
}
