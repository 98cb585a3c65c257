// A guest that is moved by QEMU while its disk writes to its memory: x86, 32 bits, without a kernel below it, started as QEMU's own
// multiboot loader has it. It asks for all blocks of the disk at once (virtio 1.2, modern PCI), each into another place of a
// buffer, and from then on writes nothing: whoever copies its memory has to be told by the device what changes. When a 'v' comes by
// the serial port it compares all of the buffer with what it should hold.
//
// It writes nothing since QEMU before 9.0 loses what its own translated code writes between two looks at its dirty pages ("physmem:
// Fix migration dirty bitmap coherency with TCG memory access").
#include <stddef.h>
#include <stdint.h>

#define PLACES 256u // of the buffer, each as large as a request
#define CHUNK_BYTES (64u << 10)
#define BUFFER 0x1000000u // far from all that this program has
#define QUEUE 1024u       // descriptors: three for each place, up to the next power of 2

__asm__(".text\n"
        ".align 4\n"
        ".long 0x1badb002, 0, -0x1badb002\n" // the Multiboot Specification, 3.1
        ".global _start\n"
        "_start: mov $stack_top, %esp\n"
        "call run\n"
        "1: hlt\n"
        "jmp 1b\n"
        ".bss\n"
        ".align 16\n"
        ".skip 16384\n"
        "stack_top:\n"
        ".text\n");

void run(void);

// ---- ports ----

static void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}

static uint8_t inb(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void outl(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" ::"a"(value), "Nd"(port));
}

static uint32_t inl(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

#define COM1 0x3f8

static void say(const char *text)
{
    for (; *text; text++) {
        while (!(inb(COM1 + 5) & 0x20))
            ;
        outb(COM1, (uint8_t)*text);
    }
}

static void say_number(const char *what, uint32_t number)
{
    char digits[12], *at = digits + sizeof(digits) - 1;
    *at = 0;
    do {
        *--at = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    say(what);
    say(at);
}

static void fail(const char *what)
{
    say("MOVING-FAILED ");
    say(what);
    say("\n");
    for (;;)
        __asm__ volatile("hlt");
}

// ---- PCI ----

static uint32_t pci_read(uint32_t device, uint32_t offset)
{
    outl(0xcf8, 0x80000000u | device << 11 | (offset & 0xfc));
    return inl(0xcfc) >> 8 * (offset & 3);
}

static uint32_t find_device(void)
{
    for (uint32_t device = 0; device < 32; device++) {
        const uint32_t id = pci_read(device, 0);
        if (id == 0x10421af4 || id == 0x10011af4) // virtio-blk, modern and transitional (virtio 1.2, 4.1.2)
            return device;
    }
    fail("no disk");
    return 0;
}

static volatile uint8_t *structure(uint32_t device, uint32_t type, uint32_t *extra)
{
    for (uint32_t cap = pci_read(device, 0x34) & 0xfc; cap; cap = pci_read(device, cap + 1) & 0xfc) {
        if ((pci_read(device, cap) & 0xff) != 9 || (pci_read(device, cap + 3) & 0xff) != type)
            continue;
        const uint32_t bar = pci_read(device, 0x10 + 4 * (pci_read(device, cap + 4) & 0xff));
        *extra = pci_read(device, cap + 16);
        return (volatile uint8_t *)((bar & ~0xfu) + pci_read(device, cap + 8)); // NOLINT(performance-no-int-to-ptr)
    }
    fail("no structure of the device");
    return NULL;
}

// ---- the disk (virtio 1.2, 4.1.4.3, 2.7, 5.2.6) ----

struct descriptor {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

static struct descriptor table[QUEUE] __attribute__((aligned(4096)));
static struct {
    uint16_t flags, idx, ring[QUEUE], event;
} avail __attribute__((aligned(4096)));
static struct {
    uint16_t flags, idx;
    struct {
        uint32_t id, len;
    } ring[QUEUE];
    uint16_t event;
} used __attribute__((aligned(4096)));
static struct {
    uint32_t type, reserved;
    uint64_t sector;
} headers[PLACES] __attribute__((aligned(4096)));
static volatile uint8_t status[PLACES] __attribute__((aligned(4096)));

static volatile uint16_t *doorbell;

static void put32(volatile uint8_t *config, uint32_t offset, uint32_t value)
{
    *(volatile uint32_t *)(config + offset) = value;
}

static void put16(volatile uint8_t *config, uint32_t offset, uint16_t value)
{
    *(volatile uint16_t *)(config + offset) = value;
}

static void put_address(volatile uint8_t *config, uint32_t offset, const volatile void *address)
{
    put32(config, offset, (uint32_t)address);
    put32(config, offset + 4, 0);
}

static void open_disk(void)
{
    uint32_t extra, multiplier;
    const uint32_t device = find_device();
    outl(0xcf8, 0x80000000u | device << 11 | 4);
    outl(0xcfc, 0x6); // memory, bus master
    volatile uint8_t *config = structure(device, 1, &extra), *notify = structure(device, 2, &multiplier);
    config[20] = 0;
    while (config[20])
        ;
    config[20] = 1 | 2;
    put32(config, 8, 1);
    put32(config, 12, 1); // VIRTIO_F_VERSION_1 and nothing else
    config[20] = 1 | 2 | 8;
    if (!(config[20] & 8))
        fail("the device wants other features");
    put16(config, 22, 0);
    put16(config, 24, QUEUE);
    put16(config, 26, 0xffff);
    put_address(config, 32, table);
    put_address(config, 40, &avail);
    put_address(config, 48, &used);
    avail.flags = 1; // no interrupts
    doorbell = (volatile uint16_t *)(notify + *(volatile uint16_t *)(config + 30) * multiplier);
    put16(config, 28, 1);
    config[20] = 1 | 2 | 8 | 4;
}

static uint32_t chunk_of(uint32_t place)
{
    return (place * 37 + 11) % PLACES;
}

static void submit(uint32_t place)
{
    const uint16_t first = (uint16_t)(place * 3);
    headers[place].sector = (uint64_t)chunk_of(place) * (CHUNK_BYTES / 512);
    status[place] = 0xff;
    table[first] = (struct descriptor){(uint32_t)&headers[place], sizeof(headers[place]), 1, (uint16_t)(first + 1)};
    table[first + 1] = (struct descriptor){BUFFER + place * CHUNK_BYTES, CHUNK_BYTES, 1 | 2, (uint16_t)(first + 2)};
    table[first + 2] = (struct descriptor){(uint32_t)&status[place], 1, 2, 0};
    avail.ring[place] = first;
}

// As the test has written them: of each 64 bits the number of the chunk and that of the word.
static void verify(void)
{
    for (uint32_t place = 0; place < PLACES; place++) {
        const volatile uint32_t *words = (const volatile uint32_t *)(BUFFER + place * CHUNK_BYTES);
        if (status[place])
            fail("a request");
        for (uint32_t i = 0; i < CHUNK_BYTES / 4; i += 2)
            if (words[i] != chunk_of(place) + 1 || words[i + 1] != i / 2) {
                say_number("MOVING-LOST: at place ", place);
                say_number(", word ", i);
                say_number(": has ", words[i]);
                say_number(" instead of ", chunk_of(place) + 1);
                say("\n");
                return;
            }
    }
    say("MOVING-VERIFIED\n");
}

void run(void)
{
    open_disk();
    for (uint32_t place = 0; place < PLACES; place++)
        submit(place);
    __atomic_store_n(&avail.idx, PLACES, __ATOMIC_SEQ_CST);
    *doorbell = 0;
    say("MOVING-GOES\n");
    while (!(inb(COM1 + 5) & 1))
        ;
    while (__atomic_load_n(&used.idx, __ATOMIC_ACQUIRE) != PLACES)
        ;
    verify();
    for (;;)
        __asm__ volatile("hlt");
}
