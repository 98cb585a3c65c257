// The hardware engine's dirty_log: a guest of a few instructions writes to more pages than a ring has entries, and exactly those
// are told, once; with the kernel's dirty rings, and with its dirty log where there are none. Runs in the outer system.
#include "machine/engine/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define RAM_BYTES (32u << 20)
#define WORDS (RAM_BYTES / 4096 / 64)
#define FIRST_PAGE 256u
#define PAGES 6000u
#define CODE 0x1000u

static bool without_rings;

int __real_ioctl(int fd, unsigned long request, void *arg);
int __wrap_ioctl(int fd, unsigned long request, ...);

// A kernel that has no rings.
int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    va_start(args, request);
    void *arg = va_arg(args, void *);
    va_end(args);
    if (without_rings && request == KVM_ENABLE_CAP) {
        errno = EINVAL;
        return -1;
    }
    return __real_ioctl(fd, request, arg);
}

static void check(bool holds, const char *what)
{
    if (holds)
        return;
    printf("failed: %s: %s\n", without_rings ? "dirty log" : "dirty ring", what);
    exit(1);
}

static int mmio_read(void *arg, uint64_t gpa, unsigned size, uint64_t *value)
{
    (void)arg, (void)gpa, (void)size, (void)value;
    return -ENXIO;
}

static int mmio_write(void *arg, uint64_t gpa, unsigned size, uint64_t value)
{
    (void)arg, (void)gpa, (void)size, (void)value;
    return -ENXIO;
}

static int port_read(void *arg, uint16_t port, unsigned size, uint64_t *value)
{
    (void)arg, (void)port, (void)size, (void)value;
    return -ENXIO;
}

static int port_write(void *arg, uint16_t port, unsigned size, uint64_t value, enum engine_exit *exit)
{
    (void)arg, (void)port, (void)size, (void)value;
    *exit = ENGINE_EXIT_SHUTDOWN;
    return 1;
}

// Writes a word to each of n pages.
static void put_program(uint8_t *ram, uint32_t n)
{
    static const uint8_t program[] = {
        0xbf, 0x00, 0x00, 0x10, 0x00,       // mov edi, 0x100000
        0xb9, 0x00, 0x00, 0x00, 0x00,       // mov ecx, n
        0x89, 0x0f,                         // mov [edi], ecx
        0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, // add edi, 4096
        0x49, 0x75, 0xf5,                   // dec ecx; jnz the mov
        0xe6, 0xf4,                         // out 0xf4, al
    };
    memcpy(ram + CODE, program, sizeof(program));
    memcpy(ram + CODE + 6, &n, sizeof(n));
}

static unsigned in_log(const uint64_t log[static WORDS], unsigned first, unsigned n)
{
    unsigned sum = 0;
    for (unsigned page = first; page < first + n; page++)
        sum += log[page / 64] >> page % 64 & 1;
    return sum;
}

static void write_pages(struct engine *e, uint8_t *ram, uint32_t n)
{
    put_program(ram, n);
    e->ops->reset(e, &(struct engine_start){.entry = CODE});
    check(e->ops->run(e, 0) == ENGINE_EXIT_SHUTDOWN, e->ops->failure(e));
}

static void write_and_look(struct engine *e, uint8_t *ram, uint32_t n)
{
    static uint64_t log[WORDS];
    write_pages(e, ram, n);
    check(e->ops->dirty_log(e, 0, log, WORDS) == 0, "cannot be read");
    check(in_log(log, FIRST_PAGE, n) == n, "a page that was written is not in it");
    check(in_log(log, 0, RAM_BYTES / 4096) == n, "a page that was not written is in it");
    check(e->ops->dirty_log(e, 0, log, WORDS) == 0 && in_log(log, 0, RAM_BYTES / 4096) == 0, "a page is told twice");
}

static void run(int kvm_fd)
{
    static uint64_t log[WORDS];
    struct guest_memory mem;
    struct tv_error err = {0};
    guest_memory_init(&mem);
    check(guest_memory_add(&mem, 0, RAM_BYTES, guest_ram_create("ram", RAM_BYTES, &err), 0, 0, &err) == 0, err.text);
    const struct engine_config config = {
        .mem = &mem,
        .n_vcpus = 2,
        .kvm_fd = kvm_fd,
        .host = {.mmio_read = mmio_read, .mmio_write = mmio_write, .port_read = port_read, .port_write = port_write}};
    struct engine *e = engine_find("kvm", &err)->create(&config, &err);
    check(e, err.text);
    uint8_t *ram = mem.regions[0].host;
    write_pages(e, ram, 10); // before anybody asks
    check(e->ops->dirty_log(e, 0, log, WORDS - 1) == -EINVAL && e->ops->dirty_log(e, 1, log, WORDS) == -EINVAL,
          "takes what is wrong");
    check(e->ops->dirty_log(e, 0, log, WORDS) == 0 && in_log(log, 0, RAM_BYTES / 4096) == 0, "does not begin empty");
    write_and_look(e, ram, PAGES);
    write_and_look(e, ram, 1);
    write_and_look(e, ram, PAGES);
    struct engine_counters counters;
    e->ops->counters(e, 0, &counters);
    unsigned long long other = 0; // of the causes only a full ring comes to the process
    for (unsigned i = 0; i < ENGINE_TRAP_CAUSES; i++)
        if (e->ops->trap_names[i] && strcmp(e->ops->trap_names[i], "other") == 0)
            other = counters.trap_causes[i];
    check(without_rings ? other == 0 : other >= 2, "the vcpu did not come back when its ring was full");
    printf("ok: dirty pages by %s, %llu times full\n", without_rings ? "the dirty log" : "dirty rings", other);
    e->ops->destroy(e);
    guest_memory_fini(&mem);
}

int main(void)
{
    int kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    check(kvm_fd >= 0, "no /dev/kvm");
    check(ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING) > 0, "the outer kernel has no rings");
    run(kvm_fd);
    without_rings = true;
    run(kvm_fd);
    close(kvm_fd);
    return 0;
}
