// What kernels that test a machine use of it: see parts.h.
#include "machine/board/board.h"
#include "machine/board/pc/parts.h"

#include <string.h>
#include <sys/mman.h>

#define PAGE_BYTES 4096ull

// Bytes that read as they were written. Each is atomic by itself; what two vcpus write at once is a mix, as in memory.
static uint64_t kept_read(const _Atomic uint8_t *bytes, uint64_t offset, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)atomic_load(&bytes[offset + i]) << 8 * i;
    return value;
}

static void kept_write(_Atomic uint8_t *bytes, uint64_t offset, unsigned size, uint64_t value)
{
    for (unsigned i = 0; i < size; i++)
        atomic_store(&bytes[offset + i], (uint8_t)(value >> 8 * i));
}

static uint64_t port_read(void *device, uint64_t offset, unsigned size)
{
    return kept_read(((struct test_ports *)device)->port, offset, size);
}

static void port_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    kept_write(((struct test_ports *)device)->port, offset, size, value);
}

static uint64_t page_read(void *device, uint64_t offset, unsigned size)
{
    return kept_read(((struct test_ports *)device)->page, offset, size);
}

static void page_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    kept_write(((struct test_ports *)device)->page, offset, size, value);
}

static void lines_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct test_ports *t = device;
    (void)size;
    board_set_irq(t->board, (unsigned)offset, value & 1);
}

static uint64_t nothing_read(void *device, uint64_t offset, unsigned size)
{
    (void)device, (void)offset, (void)size;
    return 0;
}

// The host forgets where the page is, not what is in it: guest RAM is shared memory. What accesses it next faults in the host.
static void page_out_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    const struct test_ports *t = device;
    void *page = guest_memory_view(t->mem, value & ~(PAGE_BYTES - 1), PAGE_BYTES);
    (void)offset, (void)size;
    if (page)
        madvise(page, PAGE_BYTES, MADV_DONTNEED);
}

static const struct bus_ops port_ops = {.name = "test port", .read = port_read, .write = port_write};
static const struct bus_ops page_ops = {.name = "test page", .read = page_read, .write = page_write};
static const struct bus_ops page_out_ops = {.name = "test page out", .read = nothing_read, .write = page_out_write};
static const struct bus_ops lines_ops = {.name = "test lines", .read = nothing_read, .write = lines_write};

int test_ports_init(struct test_ports *t, struct board *board, const struct guest_memory *mem, struct bus *ports,
                    struct tv_error *err)
{
    t->board = board;
    t->mem = mem;
    test_ports_reset(t);
    int rc = bus_add(ports, PC_PORT_TEST, sizeof(t->port), &port_ops, t, err);
    if (rc == 0)
        rc = bus_add(ports, PC_PORT_TEST_PAGE_OUT, 4, &page_out_ops, t, err);
    if (rc == 0)
        rc = bus_add(ports, PC_PORT_TEST_LINES, PC_LINES, &lines_ops, t, err);
    return rc == 0 ? bus_add(board_bus(board), PC_TEST_PAGE, sizeof(t->page), &page_ops, t, err) : rc;
}

void test_ports_reset(struct test_ports *t)
{
    memset((void *)t->port, 0, sizeof(t->port));
    memset((void *)t->page, 0, sizeof(t->page));
}

void test_ports_state(struct test_ports *t, struct state *s)
{
    state_section_begin(s, "test_ports", 1);
    state_bytes(s, "port", (void *)t->port, sizeof(t->port));
    state_bytes(s, "page", (void *)t->page, sizeof(t->page));
    state_section_end(s);
}
