// trivet net trace: what would become of a packet, step by step. The packet is given whole, as hexadecimal digits, or made here: an
// echo request (RFC 792, RFC 4443) to an address, from the machine or station behind the port, as far as that is known.
#include "control/cleanup.h"
#include "control/command/net.h"
#include "control/net/net_spec.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define FRAME_MAX 2048
#define PAYLOAD_DEFAULT 56 // bytes, as ping(8) has it
#define TTL_DEFAULT 64

struct packet {
    unsigned char to_mac[6], from_mac[6], to[16], from[16];
    int family; // AF_INET, AF_INET6; 0: a bare frame
    unsigned ttl, payload_bytes;
};

static bool read_mac(const char *text, unsigned char mac[static 6])
{
    unsigned b[6];
    if (!text || strlen(text) != 17 || sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]) != 6)
        return false;
    for (int i = 0; i < 6; i++)
        mac[i] = (unsigned char)b[i];
    return true;
}

// --- making one

static uint16_t sum_up(const unsigned char *data, size_t len, uint32_t sum)
{
    for (size_t i = 0; i < len; i++)
        sum += i % 2 ? data[i] : (uint32_t)data[i] << 8;
    while (sum >> 16)
        sum = (sum >> 16) + (sum & 0xffff);
    return (uint16_t)~sum;
}

static void put16(unsigned char *at, unsigned value)
{
    at[0] = (unsigned char)(value >> 8);
    at[1] = (unsigned char)value;
}

static size_t put_echo(const struct packet *p, unsigned char *icmp)
{
    const size_t len = 8 + p->payload_bytes;
    unsigned char pseudo[40] = {0};
    uint32_t sum = 0;
    memset(icmp, 0, len);
    icmp[0] = p->family == AF_INET ? 8 : 128;
    if (p->family == AF_INET6) { // RFC 8200, 8.1
        memcpy(pseudo, p->from, 16);
        memcpy(pseudo + 16, p->to, 16);
        put16(pseudo + 34, (unsigned)len);
        pseudo[39] = 58;
        sum = (uint16_t)~sum_up(pseudo, sizeof(pseudo), 0);
    }
    put16(icmp + 2, sum_up(icmp, len, sum));
    return len;
}

static size_t put_packet(const struct packet *p, unsigned char frame[static FRAME_MAX])
{
    unsigned char *h = frame + 14;
    memcpy(frame, p->to_mac, 6);
    memcpy(frame + 6, p->from_mac, 6);
    put16(frame + 12, p->family == AF_INET ? 0x0800 : p->family == AF_INET6 ? 0x86dd : 0x88b5); // the last: for experiments
    if (!p->family) {
        memset(h, 0, 46);
        return 60;
    }
    if (p->family == AF_INET) {
        memset(h, 0, 20);
        h[0] = 0x45;
        put16(h + 2, 28 + p->payload_bytes);
        h[8] = (unsigned char)p->ttl;
        h[9] = 1;
        memcpy(h + 12, p->from, 4);
        memcpy(h + 16, p->to, 4);
        put16(h + 10, sum_up(h, 20, 0));
        return 34 + put_echo(p, h + 20);
    }
    memset(h, 0, 8);
    h[0] = 0x60;
    put16(h + 4, 8 + p->payload_bytes);
    h[6] = 58;
    h[7] = (unsigned char)p->ttl;
    memcpy(h + 8, p->from, 16);
    memcpy(h + 24, p->to, 16);
    return 54 + put_echo(p, h + 40);
}

// --- who is behind the port

// An address of the machine's, else one on the link of an address of the router's.
static bool choose_source(const json_t *port, int family, unsigned char source[static 16])
{
    const json_t *machine = json_object_get(json_object_get(port, "machine"), "addresses"),
                 *own = json_object_get(port, "addresses");
    size_t i;
    json_t *entry;
    int bits;
    json_array_foreach(machine, i, entry)
    {
        if (net_parse_address(json_string_value(entry), source, NULL) == family)
            return true;
    }
    json_array_foreach(own, i, entry)
    {
        if (net_parse_address(json_string_value(entry), source, &bits) != family)
            continue;
        source[family == AF_INET ? 3 : 15] ^= 3;
        return true;
    }
    return false;
}

static const json_t *find_port(const json_t *stat, const char *name)
{
    size_t i;
    json_t *port;
    json_array_foreach(json_object_get(stat, "ports"), i, port)
    {
        if (strcmp(json_string_value(json_object_get(port, "name")), name) == 0)
            return port;
    }
    return NULL;
}

static int read_number(const char *text, const char *option, unsigned most, unsigned *value, struct tv_error *err)
{
    char *end;
    if (!text)
        return 0;
    const unsigned long n = strtoul(text, &end, 10);
    if (end == text || *end || n > most || *text == '-')
        return tv_error_set(err, -EINVAL, "%s '%s' should be a number up to %u", option, text, most);
    *value = (unsigned)n;
    return 0;
}

static int choose_macs(const struct net_command *c, const json_t *port, bool is_router, struct packet *p, struct tv_error *err)
{
    const char *mac = json_string_value(json_object_get(port, "mac"));
    const char *machine = is_router ? json_string_value(json_object_get(json_object_get(port, "machine"), "mac")) : mac;
    static const unsigned char station[6] = {0x02, 0, 0, 0, 0, 0x01};
    if (!read_mac(machine, p->from_mac))
        memcpy(p->from_mac, station, 6);
    if (c->mac && !read_mac(c->mac, p->to_mac))
        return tv_error_set(err, -EINVAL, "--mac '%s' is no address, such as 52:54:00:12:34:56", c->mac);
    if (!c->mac && is_router)
        read_mac(mac, p->to_mac);
    else if (!c->mac)
        memset(p->to_mac, 0xff, 6);
    return 0;
}

// To an IP address, or in a switch to a MAC address.
static int describe_packet(const struct net_command *c, const json_t *stat, struct packet *p, struct tv_error *err)
{
    const json_t *port = find_port(stat, c->from);
    const char *type = json_string_value(json_object_get(stat, "type"));
    const bool is_router = type && strcmp(type, "ip") == 0;
    *p = (struct packet){.ttl = TTL_DEFAULT, .payload_bytes = PAYLOAD_DEFAULT};
    if (!port)
        return tv_error_set(err, -ENOENT, "network '%s' has no port '%s'", c->words[0], c->from);
    int rc = read_number(c->ttl, "--ttl", 255, &p->ttl, err);
    if (!rc)
        rc = read_number(c->size, "--size", 1900, &p->payload_bytes, err);
    if (!rc)
        rc = choose_macs(c, port, is_router, p, err);
    if (rc)
        return rc;
    p->family = net_parse_address(c->to, p->to, NULL);
    if (!p->family && (is_router || !read_mac(c->to, p->to_mac)))
        return tv_error_set(err, -EINVAL, "--to '%s' is no address, such as 10.0.0.1%s", c->to,
                            is_router ? "" : " or 52:54:00:12:34:56");
    if (p->family && c->source && net_parse_address(c->source, p->from, NULL) != p->family)
        return tv_error_set(err, -EINVAL, "--source '%s' is no address of the kind of '%s'", c->source, c->to);
    if (p->family && !c->source && !choose_source(port, p->family, p->from))
        return tv_error_set(err, -EINVAL, "where the packet is from cannot be told by the port; give --source ADDRESS");
    return 0;
}

static json_t *as_hex(const unsigned char *frame, size_t len)
{
    char text[2 * FRAME_MAX + 1];
    for (size_t i = 0; i < len; i++)
        snprintf(text + 2 * i, 3, "%02x", frame[i]);
    return json_stringn(text, 2 * len);
}

static int make_frame(const struct net_command *c, json_t **frame, struct tv_error *err)
{
    cleanup_json json_t *stat = NULL;
    unsigned char bytes[FRAME_MAX];
    struct packet p;
    int rc = net_ask_router("vn.stat", c->words[0], NULL, &stat, err);
    if (!rc)
        rc = describe_packet(c, stat, &p, err);
    if (!rc)
        *frame = as_hex(bytes, put_packet(&p, bytes));
    return rc;
}

static void print_trace(const json_t *trace)
{
    size_t i;
    json_t *step, *port;
    json_array_foreach(json_object_get(trace, "steps"), i, step) printf("%2zu. %s\n", i + 1, json_string_value(step));
    printf("=> %s", json_string_value(json_object_get(trace, "outcome")));
    json_array_foreach(json_object_get(trace, "ports"), i, port) printf("%s%s", i ? ", " : " by ", json_string_value(port));
    if (json_object_get(trace, "cause"))
        printf(", and counted as '%s'", json_string_value(json_object_get(trace, "cause")));
    putchar('\n');
}

int net_trace(const struct net_command *c)
{
    struct tv_error err = {0};
    json_t *frame = NULL;
    cleanup_json json_t *result = NULL;
    if (!c->from || !c->to == !c->frame)
        return command_usage("net", !c->from ? "the port it comes by is missing: --from PORT"
                                             : "give one of --to ADDRESS and --frame HEX");
    if (c->frame)
        frame = json_string(c->frame);
    else if (make_frame(c, &frame, &err))
        return net_failed(c, &err);
    if (net_ask_router("trace", c->words[0], json_pack("{s:s, s:o}", "port", c->from, "frame", frame), &result, &err))
        return net_failed(c, &err);
    if (c->json)
        command_print_json(json_incref(result));
    else
        print_trace(result);
    return EXIT_OK;
}
