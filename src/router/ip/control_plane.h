// The control plane of a network that routes: its namespace, and what is learned from it. Two inputs, the table of the namespace's
// kernel (rtnetlink.c) and FPM (fpm_server.c), tell the same kind of messages (learn.h). Control thread, on its loop.
#pragma once

#include "base/loop.h"
#include "router/ip/ip.h"
#include "router/ip/learn.h"
#include "router/ip/namespace.h"

struct control_plane_config {
    const char *netns;
    uint32_t fpm_port; // 0: no FPM
    uint32_t stale_s;  // for how long routes are kept that zebra, back again or not, has not told again
};

// For a network whose state is there, with candidates. NULL with err.
struct control_plane *control_plane_create(struct vn *vn, const struct control_plane_config *config, struct tv_error *err);
void control_plane_destroy(struct control_plane *plane); // NULL is fine
// The port gets its device there, and its punt.
int control_plane_add_port(struct control_plane *plane, struct vn_port *port, struct tv_error *err);
void control_plane_withdraw_port(struct control_plane *plane, const struct vn_port *port);
const char *control_plane_netns(const struct control_plane *plane);
json_t *control_plane_describe(const struct control_plane *plane);

// ---- the inputs' side ----

// What was learned is in force: what it retired is freed, the worker sees it now.
void control_plane_settle(struct vn *vn);

// ---- rtnetlink.c ----

struct rtnetlink;

struct rtnetlink_env {
    void (*neighbours_begin)(void *arg); // all are told again
    void (*neighbours_end)(void *arg);   // and those that were not are gone
    void *arg;
};
// Begins with telling everything. Borrows all. NULL with err.
struct rtnetlink *rtnetlink_create(struct vn *vn, struct namespace *space, struct learn *learn, const struct rtnetlink_env *env,
                                   struct tv_error *err);
void rtnetlink_destroy(struct rtnetlink *r); // NULL is fine
json_t *rtnetlink_describe(const struct rtnetlink *r);

// ---- fpm_server.c ----

struct fpm_server;

struct fpm_server *fpm_server_create(struct vn *vn, struct namespace *space, struct learn *learn,
                                     const struct control_plane_config *config, struct tv_error *err);
void fpm_server_destroy(struct fpm_server *s); // NULL is fine
json_t *fpm_server_describe(const struct fpm_server *s);
