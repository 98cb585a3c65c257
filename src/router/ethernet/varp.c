// Virtual ARP: see varp.h.
#include "router/ethernet/varp.h"

#include "router/ip/header.h"

#include <stdlib.h>

struct arp_packet {
    uint16_t hardware, protocol;
    uint8_t hardware_bytes, protocol_bytes;
    uint16_t operation;
    uint8_t sender_mac[6], sender[4], target_mac[6], target[4];
} IP_WIRE;

struct nd_message {
    uint8_t type, code;
    uint16_t checksum;
    uint32_t flags; // reserved in a solicitation
    uint8_t target[16];
    uint8_t option, units, mac[6]; // in an answer (RFC 4861, 4.6.1)
} IP_WIRE;

enum { ARP_REQUEST = 1, ARP_REPLY = 2, ND_SOLICIT = 135, ND_ADVERT = 136, OPTION_TARGET = 2, HOPS = 255 };
#define SOLICIT_BYTES offsetof(struct nd_message, option)
#define SOLICITED_OVERRIDE (3u << 29) // RFC 4861, 4.4

// ---- the table ----

static size_t slot_of(const struct varp *table, unsigned family, rib_key address, uint64_t key)
{
    uint64_t hash = key + family;
    hash = (hash ^ (uint64_t)(address >> 64)) * 0x9e3779b97f4a7c15u; // 2^64 / the golden ratio
    hash = ((hash ^ hash >> 29) ^ (uint64_t)address) * 0x9e3779b97f4a7c15u;
    return (hash >> 32) & (table->n_slots - 1);
}

// The slot where the address is, or the free one where it would be.
static size_t find_slot(const struct varp *table, unsigned family, rib_key address, uint64_t key)
{
    size_t slot = slot_of(table, family, address, key);
    while (table->slots[slot] &&
           (table->entries[table->slots[slot] - 1].address != address || table->entries[table->slots[slot] - 1].family != family))
        slot = (slot + 1) & (table->n_slots - 1);
    return slot;
}

struct varp *varp_create(const struct varp_entry *entries, size_t n, uint64_t key)
{
    size_t n_slots = 16;
    while (n_slots < 2 * n)
        n_slots *= 2;
    struct varp *table = calloc(1, sizeof(*table) + n * sizeof(*entries));
    uint32_t *slots = calloc(n_slots, sizeof(*slots));
    if (!table || !slots) {
        free(table);
        free(slots);
        return NULL;
    }
    table->n_slots = n_slots;
    table->slots = slots;
    for (size_t i = 0; i < n; i++) {
        const size_t slot = find_slot(table, entries[i].family, entries[i].address, key);
        if (slots[slot])
            continue;
        table->entries[table->n++] = entries[i];
        slots[slot] = (uint32_t)table->n;
    }
    return table;
}

void varp_destroy(struct varp *table)
{
    if (table)
        free(table->slots);
    free(table);
}

const struct varp_entry *varp_find(const struct varp *table, unsigned family, rib_key address, uint64_t key)
{
    const size_t slot = find_slot(table, family, address, key);
    return table->slots[slot] ? &table->entries[table->slots[slot] - 1] : NULL;
}

// ---- answers ----

static uint32_t word_of(const uint8_t bytes[static 4])
{
    uint32_t word;
    memcpy(&word, bytes, sizeof(word));
    return be32toh(word);
}

static void turn_round(struct ethernet_header *frame, const uint8_t mac[static 6])
{
    memcpy(frame->to, frame->from, 6);
    memcpy(frame->from, mac, 6);
}

static size_t answer_arp(const struct varp *table, uint64_t key, uint8_t *frame, size_t len)
{
    struct arp_packet *arp = (void *)(frame + sizeof(struct ethernet_header));
    if (len < sizeof(struct ethernet_header) + sizeof(*arp) || arp->hardware != htobe16(1) ||
        arp->protocol != htobe16(ETHERTYPE_IP4) || arp->hardware_bytes != 6 || arp->protocol_bytes != 4 ||
        arp->operation != htobe16(ARP_REQUEST) || !word_of(arp->sender) || !memcmp(arp->sender, arp->target, sizeof(arp->sender)))
        return 0;
    const struct varp_entry *found = varp_find(table, IP4, ip4_key(word_of(arp->target)), key);
    if (!found || !memcmp(found->mac, arp->sender_mac, 6))
        return 0;
    uint8_t asked[4];
    memcpy(asked, arp->target, sizeof(asked));
    arp->operation = htobe16(ARP_REPLY);
    memcpy(arp->target, arp->sender, sizeof(asked));
    memcpy(arp->target_mac, arp->sender_mac, 6);
    memcpy(arp->sender, asked, sizeof(asked));
    memcpy(arp->sender_mac, found->mac, 6);
    turn_round((struct ethernet_header *)frame, found->mac);
    return len;
}

static bool is_solicitation(const struct ip6_header *h, const struct nd_message *nd, size_t len)
{
    if (len < sizeof(*h) + SOLICIT_BYTES || ip6_check(h, len) || h->next != IP_PROTOCOL_ICMP6 || h->hop_limit != HOPS)
        return false;
    const size_t payload = be16toh(h->payload_length);
    return payload >= SOLICIT_BYTES && nd->type == ND_SOLICIT && !nd->code && ip6_key(h->source) && h->source[0] != 0xff &&
           ip6_payload_checksum(h, IP_PROTOCOL_ICMP6, nd, payload) == 0xffff;
}

static size_t answer_nd(const struct varp *table, uint64_t key, uint8_t *frame, size_t len, size_t room)
{
    struct ip6_header *h = (void *)(frame + sizeof(struct ethernet_header));
    struct nd_message *nd = (void *)(h + 1);
    const size_t whole = sizeof(struct ethernet_header) + sizeof(*h) + sizeof(*nd);
    if (room < whole || len < sizeof(struct ethernet_header) || !is_solicitation(h, nd, len - sizeof(struct ethernet_header)))
        return 0;
    const struct varp_entry *found = varp_find(table, IP6, ip6_key(nd->target), key);
    if (!found || !memcmp(found->mac, frame + 6, 6))
        return 0;
    memcpy(h->destination, h->source, sizeof(h->source));
    memcpy(h->source, nd->target, sizeof(h->source));
    h->payload_length = htobe16(sizeof(*nd));
    nd->type = ND_ADVERT;
    nd->flags = htobe32(SOLICITED_OVERRIDE);
    nd->option = OPTION_TARGET;
    nd->units = 1;
    memcpy(nd->mac, found->mac, 6);
    nd->checksum = 0;
    nd->checksum = (uint16_t)~ip6_payload_checksum(h, IP_PROTOCOL_ICMP6, nd, sizeof(*nd));
    turn_round((struct ethernet_header *)frame, found->mac);
    return whole;
}

size_t varp_answer(const struct varp *table, uint64_t key, uint8_t *frame, size_t len_bytes, size_t room_bytes)
{
    const struct ethernet_header *head = (const struct ethernet_header *)frame;
    if (len_bytes < sizeof(*head))
        return 0;
    if (head->type == htobe16(ETHERTYPE_ARP))
        return answer_arp(table, key, frame, len_bytes);
    return head->type == htobe16(ETHERTYPE_IP6) ? answer_nd(table, key, frame, len_bytes, room_bytes) : 0;
}
