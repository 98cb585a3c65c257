// fw_cfg: see parts.h. Keys and their forms: QEMU, docs/specs/fw_cfg.rst and include/standard-headers/linux/qemu_fw_cfg.h.
#include "machine/board/pc/parts.h"

#include <stddef.h>

enum { KEY_SIGNATURE = 0x00, KEY_ID = 0x01, KEY_RAM_SIZE = 0x03, KEY_NB_CPUS = 0x05, KEY_MAX_CPUS = 0x0f, KEY_FILE_DIR = 0x19 };
enum { ID_TRADITIONAL = 1 << 0 };
#define SIGNATURE 0x554d4551u // "QEMU"
#define ITEM_BYTES_MAX 8u

// The key's value, little-endian, and how many bytes it has: 0 when there is no such key.
static unsigned item(const struct fw_cfg *f, uint16_t key, uint64_t *value)
{
    switch (key) {
    case KEY_SIGNATURE:
        *value = SIGNATURE;
        return 4;
    case KEY_ID:
        *value = ID_TRADITIONAL;
        return 4;
    case KEY_RAM_SIZE:
        *value = f->memory_bytes;
        return 8;
    case KEY_NB_CPUS:
    case KEY_MAX_CPUS:
        *value = f->n_vcpus;
        return 2;
    case KEY_FILE_DIR:
        *value = 0;
        return 4;
    default:
        return 0;
    }
}

// Behind the end of an item, and where there is none, are zeroes.
static uint64_t next_byte(struct fw_cfg *f)
{
    uint64_t value = 0;
    pthread_mutex_lock(&f->lock);
    unsigned at = f->at, n = item(f, f->key, &value);
    if (at < n)
        f->at++;
    pthread_mutex_unlock(&f->lock);
    return at < n ? value >> 8 * at & 0xff : 0;
}

static uint64_t read(void *device, uint64_t offset, unsigned size)
{
    return offset == 1 && size == 1 ? next_byte(device) : 0;
}

static void write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct fw_cfg *f = device;
    if (offset != 0 || size != 2)
        return;
    pthread_mutex_lock(&f->lock);
    f->key = (uint16_t)value;
    f->at = 0;
    pthread_mutex_unlock(&f->lock);
}

const struct bus_ops fw_cfg_bus_ops = {.name = "fw_cfg", .read = read, .write = write};

void fw_cfg_init(struct fw_cfg *f, unsigned n_vcpus, uint64_t memory_bytes)
{
    *f = (struct fw_cfg){.n_vcpus = (uint16_t)n_vcpus, .memory_bytes = memory_bytes};
    pthread_mutex_init(&f->lock, NULL);
}

void fw_cfg_fini(struct fw_cfg *f)
{
    pthread_mutex_destroy(&f->lock);
}

void fw_cfg_reset(struct fw_cfg *f)
{
    pthread_mutex_lock(&f->lock);
    f->key = 0;
    f->at = 0;
    pthread_mutex_unlock(&f->lock);
}

void fw_cfg_state(struct fw_cfg *f, struct state *s)
{
    pthread_mutex_lock(&f->lock);
    state_section_begin(s, "fw_cfg", 1);
    state_u16(s, "key", &f->key);
    state_u32(s, "at", &f->at);
    if (f->at > ITEM_BYTES_MAX)
        state_fail(s, "fw_cfg: byte %u of key 0x%x, and none has more than %u", f->at, f->key, ITEM_BYTES_MAX);
    if (state_failed(s))
        f->at = 0;
    state_section_end(s);
    pthread_mutex_unlock(&f->lock);
}
