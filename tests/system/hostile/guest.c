// A guest that means ill, on a real engine: it sets its devices up in earnest and then breaks them with random accesses to
// configuration space, BARs, MSI-X tables, queue registers, rings, descriptors, ports and to where nothing is. Then it resets them,
// uses them as a driver would, says what came of it and powers off.
//
// Its command line is "seed=S accesses=N status=E". It runs without interrupts, so that messages of its own devices do nothing, and
// gives devices no address of its code.
#include "guest.h"

#define SLOTS 4u // host bridge or nothing, console, entropy, disk
enum { SLOT_CONSOLE = 1, SLOT_RNG = 2, SLOT_DISK = 3 };
enum { CONFIG_COMMAND = 0x04, CONFIG_BAR0 = 0x10, CONFIG_CAPS = 0x34, CAP_MSIX = 0x11 };
// virtio 1.2, 4.1.4.3; where the structures are in the BAR is virtio_pci_regs.c's.
enum { BAR_COMMON = 0x0000, BAR_NOTIFY = 0x3000, BAR_BYTES = 0x8000 };
enum {
    OFFERED_AT = 0x00,
    OFFERED = 0x04,
    FEATURES_AT = 0x08,
    FEATURES = 0x0c,
    MSIX_VECTOR = 0x10,
    STATUS = 0x14,
    Q_SELECT = 0x16,
    Q_SIZE = 0x18,
    Q_VECTOR = 0x1a
};
enum { Q_ENABLE = 0x1c, Q_DESC = 0x20, Q_AVAIL = 0x28, Q_USED = 0x30 };
enum { QUEUES = 6, QUEUE_SIZE = 16, DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };

#define WAIT (1u << 30) // rounds, where a busy host may let others run first

static uint64_t state;
static uint32_t accesses, wanted;
static uint32_t msix_table[SLOTS];

uint64_t draw(void) // xorshift64*
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1dull;
}

uint32_t below(uint32_t bound) // without a division of 64 bits, which x86-64's 32-bit mode has not
{
    return (uint32_t)(draw() >> 32) % bound;
}

static uint64_t get(uint64_t addr, unsigned size)
{
    accesses++;
    return mmio_read(addr, size);
}

static void put(uint64_t addr, unsigned size, uint64_t value)
{
    accesses++;
    mmio_write(addr, size, value);
}

static uint64_t config_of(unsigned slot)
{
    return ECAM_BASE + (slot << 15);
}

static uint64_t bar_of(unsigned slot)
{
    return BARS_BASE + slot * BAR_BYTES;
}

// A message of a delivery mode other than fixed could be an INIT of this vcpu: its bits are kept out of whatever may be an MSI-X
// table.
static uint64_t harmless(uint64_t addr, unsigned size, uint64_t value)
{
    unsigned in_word = addr & 3;
    if (size == 1)
        return in_word == 1 ? value & ~7ull : value;
    if (size == 2)
        return in_word == 0 ? value & ~0x700ull : value;
    return value & ~0x0000070000000700ull;
}

// --- in earnest

static void place(unsigned slot)
{
    uint64_t config = config_of(slot);
    put(config + CONFIG_BAR0, 4, bar_of(slot));
    put(config + CONFIG_BAR0 + 4, 4, 0);
    put(config + CONFIG_COMMAND, 2, 6); // memory, bus master
    unsigned cap = (unsigned)get(config + CONFIG_CAPS, 1);
    for (unsigned i = 0; i < 40 && cap && get(config + cap, 1) != CAP_MSIX; i++)
        cap = (unsigned)get(config + cap + 1, 1);
    if (!cap || cap > 0xf0)
        return;
    msix_table[slot] = (uint32_t)get(config + cap + 4, 4) & ~7u;
    put(config + cap + 2, 2, 0x8000);
    for (unsigned i = 0; i < 4; i++) {
        put(bar_of(slot) + msix_table[slot] + i * 16, 8, MSI_ADDR);
        put(bar_of(slot) + msix_table[slot] + i * 16 + 8, 4, 0x40 + i);
        put(bar_of(slot) + msix_table[slot] + i * 16 + 12, 4, 0);
    }
}

static uint64_t ring_of(unsigned slot, unsigned queue)
{
    return SANDBOX + slot * 0x10000 + queue * 0x1000;
}

static void enable_queue(unsigned slot, unsigned queue, uint64_t desc, uint64_t avail, uint64_t used)
{
    uint64_t common = bar_of(slot) + BAR_COMMON;
    put(common + Q_SELECT, 2, queue);
    put(common + Q_SIZE, 2, QUEUE_SIZE);
    put(common + Q_VECTOR, 2, queue & 3);
    put(common + Q_DESC, 8, desc);
    put(common + Q_AVAIL, 8, avail);
    put(common + Q_USED, 8, used);
    put(common + Q_ENABLE, 2, 1);
}

// Up to FEATURES_OK. False: it does not come out of its reset.
static bool negotiate(unsigned slot, uint64_t features)
{
    uint64_t common = bar_of(slot) + BAR_COMMON;
    put(common + STATUS, 1, 0);
    for (uint32_t i = 0; mmio_read(common + STATUS, 1) != 0; i++) // waiting is no access that counts
        if (i > WAIT)
            return false;
    put(common + STATUS, 1, 3);
    for (unsigned i = 0; i < 2; i++) {
        put(common + FEATURES_AT, 4, i);
        put(common + FEATURES, 4, features >> 32 * i);
    }
    put(common + STATUS, 1, 11);
    put(common + MSIX_VECTOR, 2, 0);
    return true;
}

static void clear(uint64_t addr, unsigned n_bytes)
{
    for (unsigned i = 0; i < n_bytes; i++)
        ((volatile uint8_t *)(uintptr_t)addr)[i] = 0;
}

static void put_desc(uint64_t ring, unsigned i, uint64_t addr, uint32_t len_bytes, unsigned flags, unsigned next)
{
    volatile uint32_t *desc = (volatile uint32_t *)(uintptr_t)(ring + 16 * i);
    desc[0] = (uint32_t)addr;
    desc[1] = (uint32_t)(addr >> 32);
    desc[2] = len_bytes;
    desc[3] = flags | next << 16;
}

static void offer(unsigned slot, unsigned queue, unsigned head)
{
    volatile uint16_t *avail = (volatile uint16_t *)(uintptr_t)(ring_of(slot, queue) + 0x400);
    avail[2 + avail[1] % QUEUE_SIZE] = (uint16_t)head;
    __sync_synchronize();
    avail[1]++;
    __sync_synchronize();
    put(bar_of(slot) + BAR_NOTIFY + 4 * queue, 2, queue);
}

// With those of the features that are offered.
static void bring_up(unsigned slot, uint64_t features, unsigned n_queues)
{
    uint64_t common = bar_of(slot) + BAR_COMMON, offered = 0;
    place(slot);
    for (unsigned i = 0; i < 2; i++) {
        put(common + OFFERED_AT, 4, i);
        offered |= get(common + OFFERED, 4) << 32 * i;
    }
    if (!negotiate(slot, 1ull << 32 | (offered & features)))
        return;
    for (unsigned i = 0; i < n_queues; i++) {
        uint64_t ring = ring_of(slot, i);
        clear(ring, 0x1000);
        enable_queue(slot, i, ring, ring + 0x400, ring + 0x800);
    }
    put(common + STATUS, 1, 15);
}

// One buffer's way to the device and back; false: it did not come in time.
static bool serves(unsigned slot, unsigned head)
{
    volatile uint16_t *used = (volatile uint16_t *)(uintptr_t)(ring_of(slot, 0) + 0x800);
    uint16_t before = used[1];
    offer(slot, 0, head);
    for (uint32_t i = 0; i < WAIT; i++) {
        if (used[1] != before)
            return true;
        if (i % 1024 == 0)
            mmio_read(bar_of(slot) + BAR_COMMON + STATUS, 1); // lets the device's thread run where there is one processor
    }
    return false;
}

static bool entropy_works(void)
{
    uint64_t ring = ring_of(SLOT_RNG, 0);
    bring_up(SLOT_RNG, 0, 1);
    put_desc(ring, 0, SANDBOX + 0x100000, 64, DESC_WRITE, 0);
    return serves(SLOT_RNG, 0);
}

static bool disk_works(void)
{
    uint64_t ring = ring_of(SLOT_DISK, 0), buffer = SANDBOX + 0x100000;
    bring_up(SLOT_DISK, 0, 1);
    clear(buffer, 0x2000);
    *(volatile uint8_t *)(uintptr_t)(buffer + 0x1fff) = 0xff;
    put_desc(ring, 0, buffer, 16, DESC_NEXT, 1); // a read of sector 0: virtio 1.2, 5.2.6
    put_desc(ring, 1, buffer + 512, 4096, DESC_NEXT | DESC_WRITE, 2);
    put_desc(ring, 2, buffer + 0x1fff, 1, DESC_WRITE, 0);
    return serves(SLOT_DISK, 0) && *(volatile uint8_t *)(uintptr_t)(buffer + 0x1fff) == 0;
}

// --- and not

static uint64_t sized(uint64_t addr, unsigned size)
{
    return addr & ~(uint64_t)(size - 1);
}

static void access(uint64_t addr)
{
    unsigned size = 1u << below(4);
    addr = sized(addr, size);
    if (draw() & 1)
        get(addr, size);
    else
        put(addr, size, harmless(addr, size, draw() >> below(64)));
}

// Memory that may be: in the sandbox, at its end, or nowhere.
static uint64_t some_memory(void)
{
    uint32_t kind = below(8);
    if (kind == 0)
        return draw() | 1ull << 47; // no RAM is there
    if (kind == 1)
        return SANDBOX + SANDBOX_BYTES - below(64);
    return SANDBOX + below(SANDBOX_BYTES);
}

static void odd_descriptor(void)
{
    unsigned slot = 1 + below(SLOTS - 1), queue = below(QUEUES), head = below(QUEUE_SIZE + 4);
    if (head < QUEUE_SIZE)
        put_desc(ring_of(slot, queue), head, some_memory(), (uint32_t)(draw() >> below(64)),
                 below(8) & (DESC_NEXT | DESC_WRITE | DESC_INDIRECT), below(QUEUE_SIZE + 4));
    offer(slot, queue, head);
}

static void odd_queue(void)
{
    unsigned slot = 1 + below(SLOTS - 1), queue = below(QUEUES + 2);
    place(slot);
    negotiate(slot, draw() & 1 ? 1ull << 32 : draw()); // in half of the cases it takes them
    enable_queue(slot, queue, some_memory(), some_memory(), some_memory());
    put(bar_of(slot) + BAR_COMMON + STATUS, 1, 15);
}

static void step(void)
{
    uint32_t kind = below(64);
    unsigned slot = below(SLOTS);
    if (kind < 12)
        access(config_of(slot) + below(272));
    else if (kind < 30)
        access(bar_of(slot) + below(BAR_BYTES));
    else if (kind < 38)
        access(bar_of(slot) + BAR_COMMON + below(64));
    else if (kind < 44)
        access(bar_of(slot) + msix_table[slot] + below(128));
    else if (kind < 48)
        access(odd_address());
    else if (kind < 54)
        accesses++, odd_access();
    else if (kind < 62)
        odd_descriptor();
    else if (kind == 62)
        odd_queue();
    else
        bring_up(slot ? slot : 1, draw(), QUEUES);
}

// --- what it was told, and tells

static uint64_t number_behind(const char *words, unsigned n_bytes, const char *name)
{
    for (unsigned i = 0; i < n_bytes; i++) {
        unsigned n = 0;
        while (name[n] && i + n < n_bytes && words[i + n] == name[n])
            n++;
        if (name[n])
            continue;
        uint64_t value = 0;
        for (i += n; i < n_bytes && words[i] >= '0' && words[i] <= '9'; i++)
            value = value * 10 + (uint64_t)(words[i] - '0');
        return value;
    }
    return 0;
}

static void say(const char *text)
{
    while (*text)
        console_put(*text++);
}

static void say_number(uint32_t value)
{
    char digits[10];
    unsigned n = 0;
    do
        digits[n++] = (char)('0' + value % 10);
    while (value /= 10);
    while (n)
        console_put(digits[--n]);
}

void guest_main(const char *words, unsigned n_bytes)
{
    state = number_behind(words, n_bytes, "seed=") * 2 + 1;
    wanted = (uint32_t)number_behind(words, n_bytes, "accesses=");
    console_open();
    say("begins\n");
    for (unsigned i = 1; i < SLOTS; i++)
        bring_up(i, 0, QUEUES);
    while (accesses < wanted)
        step();
    uint32_t made = accesses;
    bool entropy = entropy_works(), disk = disk_works();
    console_open();
    say("\nmade ");
    say_number(made);
    say(" accesses; entropy ");
    say(entropy ? "works" : "fails");
    say(", disk ");
    say(disk ? "works" : "fails");
    say(".\n");
    power_off((uint32_t)number_behind(words, n_bytes, "status="));
}
