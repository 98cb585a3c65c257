// Peers: other hosts with a trivet-router, to which links lead. Each tells the others which machines its networks have, so that
// questions for them are answered where they are asked (vARP, ethernet/varp.h).
//
// A host connects to each of its peers by TLS and hears from it; it says nothing itself. What it hears are notifications of
// JSON-RPC: first all networks that have a link to it, varp.network {"network", "neighbours": [{"address", "mac"}]} each, then
// varp.synced, then each network again whenever its machines have changed. So a connection that was lost is made good by the next
// one, and what is not said in it until varp.synced is forgotten. Without a connection for half a minute all is.
//
// Both ends have certificates of one CA, for the address that links have as `remote`; what a host says counts for links to that
// address alone, and it hears of no other networks. The loop's thread.
#pragma once

#include "base/loop.h"
#include "router/router.h"

struct peers;

struct peers *peers_create(struct router *router, struct loop *loop, struct tv_error *err);
void peers_destroy(struct peers *peers); // NULL is fine

// Parameters as trivet-router(8) has them, checked whole.
// fd: a listening TCP socket that came with it, or -1; taken with success only.
int peers_serve(struct peers *peers, const json_t *params, int fd, struct tv_error *err);
int peers_add(struct peers *peers, const json_t *params, struct tv_error *err);
int peers_remove(struct peers *peers, const json_t *params, struct tv_error *err);
json_t *peers_list(const struct peers *peers);
