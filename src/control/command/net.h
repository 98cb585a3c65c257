// What follows `trivet net`: verbs, one function each. Private to net*.c.
#pragma once

#include "control/command/command.h"

#include <stdint.h>

struct net_command {
    char **words; // behind the verb
    int n_words;
    bool json;
    bool nat, dhcp, dns;                                                            // of create
    const char *type, *prefix, *gateway, *tenant, *option, *forward, *link, *limit; // the same; NULL: not said
    const char *port, *output, *count, *seconds, *snap;                             // of capture and graph
    const char *from, *frame, *source, *to, *mac, *ttl, *size;                      // of trace
};

int net_failed(const struct net_command *c, const struct tv_error *err); // says so; the exit status
// Asks trivetd: its methods take {"name": the network's} and more. Takes params, which may be NULL. *result is the caller's.
int net_ask(const char *method, const char *network, json_t *params, json_t **result, struct tv_error *err);
// Asks the router, through trivetd.
int net_ask_router(const char *method, const char *network, json_t *params, json_t **result, struct tv_error *err);
// What is behind it when nothing but its answer matters.
int net_print(const struct net_command *c, json_t *result, const char *format, ...) __attribute__((format(printf, 3, 4)));

// "a,b" as a list of texts; NULL is an empty one. The caller's.
json_t *net_split(const char *text);
// "KEY=VALUE": numbers and true and false become such, "A,B" of a key that takes a list a list.
int net_put_option(json_t *json, const char *word, struct tv_error *err);

// A number where it is one, else the text, which the router refuses with what it should be.
void net_put_number(json_t *json, const char *key, const char *text);

int net_capture(const struct net_command *c); // net_capture.c
int net_graph(const struct net_command *c);   // net_graph.c
int net_trace(const struct net_command *c);   // net_trace.c
int net_stats(const struct net_command *c);   // net_look.c
int net_routes(const struct net_command *c);
int net_neighbours(const struct net_command *c);
int net_list(const struct net_command *c);
int net_show(const struct net_command *c);
int net_host(const struct net_command *c); // net_host.c
int net_peer(const struct net_command *c);
int net_peers(const struct net_command *c);
const char *net_peer_state(const json_t *peer); // in words; the peer's "synced" and "hears"
