// Blocks of a capture file: see pcapng.h. Sections are those of the draft.
#include "router/pcapng.h"

#include <string.h>

enum { SECTION_HEADER = 0x0a0d0d0a, INTERFACE = 1, ENHANCED_PACKET = 6, STATISTICS = 5 };            // 4.1, 4.2, 4.3, 4.6
enum { OPTION_END = 0, IF_NAME = 2, IF_TSRESOL = 9, EPB_FLAGS = 2, ISB_IFRECV = 4, ISB_IFDROP = 5 }; // 3.5, 4.2, 4.3, 4.6
#define BYTE_ORDER_MAGIC 0x1a2b3c4du
#define LINKTYPE_ETHERNET 1
#define NANOSECONDS 9

struct block {
    uint8_t *out;
    size_t at;
};

static void put(struct block *b, const void *data, size_t len)
{
    memcpy(b->out + b->at, data, len);
    b->at += len;
}

static void put16(struct block *b, unsigned value)
{
    const uint16_t v = (uint16_t)value;
    put(b, &v, sizeof(v));
}

static void put32(struct block *b, uint32_t value)
{
    put(b, &value, sizeof(value));
}

static void put64(struct block *b, uint64_t value)
{
    put(b, &value, sizeof(value));
}

// Data are filled up to four bytes (3.1).
static void put_padded(struct block *b, const void *data, size_t len)
{
    put(b, data, len);
    while (b->at % 4)
        b->out[b->at++] = 0;
}

static void put_option(struct block *b, unsigned code, const void *data, size_t len)
{
    put16(b, code);
    put16(b, (unsigned)len);
    put_padded(b, data, len);
}

static struct block begin(uint8_t *out, uint32_t type)
{
    struct block b = {out, 0};
    put32(&b, type);
    put32(&b, 0); // its length, at the end
    return b;
}

// The length stands at both ends (3.1).
static size_t end(struct block *b)
{
    const uint32_t len = (uint32_t)b->at + 4;
    memcpy(b->out + 4, &len, sizeof(len));
    put32(b, len);
    return b->at;
}

size_t pcapng_section(uint8_t *out)
{
    struct block b = begin(out, SECTION_HEADER);
    put32(&b, BYTE_ORDER_MAGIC);
    put16(&b, 1); // version 1.0
    put16(&b, 0);
    put64(&b, UINT64_MAX); // how long the section is: not said
    return end(&b);
}

size_t pcapng_interface(uint8_t *out, const char *name, uint32_t snap_bytes)
{
    const uint8_t resolution = NANOSECONDS;
    struct block b = begin(out, INTERFACE);
    put16(&b, LINKTYPE_ETHERNET);
    put16(&b, 0);
    put32(&b, snap_bytes);
    put_option(&b, IF_NAME, name, strnlen(name, PCAPNG_NAME_MAX));
    put_option(&b, IF_TSRESOL, &resolution, sizeof(resolution));
    put_option(&b, OPTION_END, NULL, 0);
    return end(&b);
}

static void put_time(struct block *b, uint64_t at_ns)
{
    put32(b, (uint32_t)(at_ns >> 32));
    put32(b, (uint32_t)at_ns);
}

size_t pcapng_packet(uint8_t *out, uint32_t interface, uint64_t at_ns, enum pcapng_direction direction, const void *data,
                     uint32_t kept_bytes, uint32_t len_bytes)
{
    const uint32_t flags = direction;
    struct block b = begin(out, ENHANCED_PACKET);
    put32(&b, interface);
    put_time(&b, at_ns);
    put32(&b, kept_bytes);
    put32(&b, len_bytes);
    put_padded(&b, data, kept_bytes);
    put_option(&b, EPB_FLAGS, &flags, sizeof(flags));
    put_option(&b, OPTION_END, NULL, 0);
    return end(&b);
}

size_t pcapng_statistics(uint8_t *out, uint32_t interface, uint64_t at_ns, uint64_t received, uint64_t dropped)
{
    struct block b = begin(out, STATISTICS);
    put32(&b, interface);
    put_time(&b, at_ns);
    put_option(&b, ISB_IFRECV, &received, sizeof(received));
    put_option(&b, ISB_IFDROP, &dropped, sizeof(dropped));
    put_option(&b, OPTION_END, NULL, 0);
    return end(&b);
}
