// The gateway of a network: a network namespace between it and the outside, for NAT, port forwards, DHCP and DNS.
//
// In the namespace are a TAP device, `vn`, whose other end is a port of the network, and one end of a veth pair, `out`, whose other
// end is the host's. nftables translates there, so two networks may have the same addresses; and once more in the host, where the
// namespace has an address of its own. What the host has of it (the pair, a table of nftables by the namespace's name) goes with
// it.
//
// It is known by its name alone, so whoever comes after us finds it again. Needs root. On the caller's thread, which runs ip(8) and
// nft(8) and waits for them.
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>

#define GATEWAY_PORT "gateway" // the network's port that leads there

struct gateway {
    const json_t *spec;          // the network's (net_spec.h); borrowed
    char space[64];              // the namespace, as ip-netns(8) has it
    char device[16];             // the host's end of the pair; this and the next only once it is made by this struct
    char outer[16], inner[16];   // addresses of the pair: the host's, the namespace's
    char outer6[40], inner6[40]; // the same of IPv6
};

// Names alone; run_dir tells gateways of different supervisors apart.
void gateway_init(struct gateway *gateway, const char *run_dir, const json_t *spec);
bool gateway_is_there(const struct gateway *gateway);
// What is there of that name is taken away first. The pair's device and addresses are ones that nobody in the host has. The host
// forwards IPv4 from then on, and with its last gateway, whoever made it, no longer if it did not before.
int gateway_make(struct gateway *gateway, struct tv_error *err);
void gateway_remove(const struct gateway *gateway);

// The TAP device's descriptor, for the router; one at a time can have it. The caller's, or -errno with err.
int gateway_open_device(const struct gateway *gateway, struct tv_error *err);
// port.add and, in a network that routes, what leads there. The caller's.
json_t *gateway_port(const struct gateway *gateway);
json_t *gateway_routes(const struct gateway *gateway); // an empty list for a switch

// dnsmasq(8) for it: its command line, which ends with NULL; the caller's words. leases: a file. hosts: [{"mac", "address",
// "name"}], machines that get an address of their own.
#define GATEWAY_WORDS_MAX 280
struct gateway_words {
    char *words[GATEWAY_WORDS_MAX + 1];
    int n;
};
int gateway_dnsmasq(const struct gateway *gateway, const char *leases, const json_t *hosts, struct gateway_words *words,
                    struct tv_error *err);
void gateway_free_words(struct gateway_words *words);
// Enters the namespace for good: for a process that is about to run a program there. arg: a struct gateway. 0 or -errno.
int gateway_enter(void *arg);
