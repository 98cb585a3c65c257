// The control plane of a network that routes: see control_plane.h.
#include "router/ip/control_plane.h"

#include <errno.h>
#include <linux/neighbour.h>
#include <stdlib.h>
#include <unistd.h>

// A neighbour that the namespace's table has and the worker was told of.
struct told_neighbour {
    struct ip_prefix address;
    unsigned port;
    uint8_t mac[6];
    bool is_stale;
};

struct control_plane {
    struct vn *vn;
    struct namespace *space;
    struct learn kernel, fpm;
    struct rtnetlink *rtnetlink;
    struct fpm_server *server; // NULL: no FPM
    struct told_neighbour *neighbours;
    unsigned n_neighbours, room;
};

void control_plane_settle(struct vn *vn)
{
    struct ip *ip = vn->state;
    fib_settle(&ip->fib);
    vn->env.wake(vn->env.wake_arg);
}

// ---- devices and ports ----

static struct vn_port *find_port(struct vn *vn, uint32_t device)
{
    for (unsigned i = 0; i < VN_PORTS_MAX; i++) {
        struct vn_port *port = atomic_load_explicit(&vn->slots[i], memory_order_relaxed);
        const struct ip_port *own = port ? port->state : NULL;
        if (own && own->device == device)
            return port;
    }
    return NULL;
}

// A gateway that is the router itself is none; what is behind other devices is the namespace's to route.
static enum target_kind resolve(void *arg, const struct netlink_hop *in, struct hop *hop)
{
    const struct control_plane *plane = arg;
    const struct vn_port *port = in->device ? find_port(plane->vn, in->device) : NULL;
    if (!port && in->device)
        return TARGET_PUNT;
    *hop = (struct hop){.family = in->family, .gateway = in->gateway};
    if (!port && !(port = ip_find_link(plane->vn, in->family, in->gateway)))
        return TARGET_NONE;
    hop->port = (uint16_t)port->index;
    if (!in->family)
        return TARGET_LINK;
    return ip_is_own(port->state, in->family, in->gateway) ? TARGET_NONE : TARGET_VIA;
}

// The addresses of the machine behind a port, which need not be in a prefix of the port's.
static unsigned list_machine(const struct guard *guard, struct ip_prefix stations[static 2 * GUARD_ADDRESSES_MAX])
{
    unsigned n = 0;
    uint8_t bytes[16];
    for (unsigned i = 0; i < guard->n_ip4; i++) {
        memset(bytes, 0, sizeof(bytes));
        memcpy(bytes, guard->ip4[i], 4);
        stations[n++] = (struct ip_prefix){.family = IP4, .len = 32, .key = ip6_key(bytes)};
    }
    for (unsigned i = 0; i < guard->n_ip6; i++)
        stations[n++] = (struct ip_prefix){.family = IP6, .len = 128, .key = ip6_key(guard->ip6[i])};
    return n;
}

int control_plane_add_port(struct control_plane *plane, struct vn_port *port, struct tv_error *err)
{
    struct ip_port *own = port->state;
    struct ip_prefix stations[2 * GUARD_ADDRESSES_MAX];
    const unsigned n_stations = list_machine(&own->guard, stations);
    const struct namespace_device device = {.name = port->name,
                                            .mac = own->mac,
                                            .mtu = own->mtu,
                                            .n_addresses = own->n_addresses,
                                            .addresses = own->addresses,
                                            .n_stations = n_stations,
                                            .stations = stations};
    int fd = namespace_add_device(plane->space, &device, &own->device, err);
    if (fd < 0)
        return fd;
    const int r = vn_add_punt(plane->vn, port, fd, err);
    if (r)
        close(fd);
    return r;
}

// ---- neighbours ----

static struct told_neighbour *find_neighbour(struct control_plane *plane, const struct ip_prefix *address, unsigned port)
{
    for (unsigned i = 0; i < plane->n_neighbours; i++) {
        struct told_neighbour *n = &plane->neighbours[i];
        if (n->port == port && n->address.family == address->family && n->address.key == address->key)
            return n;
    }
    return NULL;
}

static void post(struct control_plane *plane, const struct told_neighbour *n, bool adds)
{
    struct ip_message *message = malloc(sizeof(*message));
    if (!message)
        return; // it is asked for then, as others are
    *message = (struct ip_message){.adds = adds, .family = n->address.family, .port = n->port, .address = n->address.key};
    memcpy(message->mac, n->mac, sizeof(message->mac));
    ip_post(plane->vn, message);
}

static struct told_neighbour *add_neighbour(struct control_plane *plane, const struct ip_prefix *address, unsigned port)
{
    const struct ip *ip = plane->vn->state;
    if (plane->n_neighbours == plane->room) {
        const unsigned room = plane->room ? plane->room * 2 : 16;
        struct told_neighbour *grown =
            room > ip->neighbours->most ? NULL : reallocarray(plane->neighbours, room, sizeof(*plane->neighbours));
        if (!grown)
            return NULL;
        plane->neighbours = grown;
        plane->room = room;
    }
    struct told_neighbour *n = &plane->neighbours[plane->n_neighbours++];
    *n = (struct told_neighbour){.address = *address, .port = port};
    return n;
}

static void remove_neighbour(struct control_plane *plane, struct told_neighbour *n)
{
    post(plane, n, false);
    *n = plane->neighbours[--plane->n_neighbours];
}

// Those that somebody has put there: what the kernel makes up for a device that resolves nobody is none.
static bool is_put(const struct netlink_neighbour *in)
{
    return in->has_mac && !(in->mac[0] & 1) && (in->state & NUD_PERMANENT || in->flags & NTF_EXT_LEARNED) &&
           !(in->flags & NTF_PROXY);
}

static void on_neighbour(void *arg, const struct netlink_neighbour *in, bool adds)
{
    struct control_plane *plane = arg;
    const struct vn_port *port = in->device ? find_port(plane->vn, in->device) : NULL;
    if (!port || ip_is_own(port->state, in->address.family, in->address.key))
        return;
    struct told_neighbour *n = find_neighbour(plane, &in->address, port->index);
    if (!adds || !is_put(in)) {
        if (n)
            remove_neighbour(plane, n);
        return;
    }
    const bool is_new = !n;
    if (is_new && !(n = add_neighbour(plane, &in->address, port->index)))
        return;
    n->is_stale = false;
    if (!is_new && !memcmp(n->mac, in->mac, sizeof(n->mac)))
        return;
    memcpy(n->mac, in->mac, sizeof(n->mac));
    post(plane, n, true);
}

static void neighbours_begin(void *arg)
{
    struct control_plane *plane = arg;
    for (unsigned i = 0; i < plane->n_neighbours; i++)
        plane->neighbours[i].is_stale = true;
}

static void neighbours_end(void *arg)
{
    struct control_plane *plane = arg;
    for (unsigned i = plane->n_neighbours; i-- > 0;)
        if (plane->neighbours[i].is_stale)
            remove_neighbour(plane, &plane->neighbours[i]);
}

// The worker forgets all of a port's by itself.
void control_plane_withdraw_port(struct control_plane *plane, const struct vn_port *port)
{
    struct ip_port *own = port->state;
    own->device = 0;
    for (unsigned i = plane->n_neighbours; i-- > 0;)
        if (plane->neighbours[i].port == port->index)
            plane->neighbours[i] = plane->neighbours[--plane->n_neighbours];
}

// ---- coming and going ----

struct control_plane *control_plane_create(struct vn *vn, const struct control_plane_config *config, struct tv_error *err)
{
    struct ip *ip = vn->state;
    struct control_plane *plane = calloc(1, sizeof(*plane));
    if (!plane) {
        tv_error_set(err, -ENOMEM, "out of memory");
        return NULL;
    }
    const struct learn_env env = {.resolve = resolve, .neighbour = on_neighbour, .arg = plane},
                           fpm_env = {.resolve = resolve, .arg = plane};
    const struct rtnetlink_env rtnetlink_env = {neighbours_begin, neighbours_end, plane};
    plane->vn = vn;
    learn_init(&plane->kernel, ip->candidates, ORIGIN_KERNEL, &env);
    learn_init(&plane->fpm, ip->candidates, ORIGIN_FPM, &fpm_env);
    plane->space = namespace_open(config->netns, err);
    if (plane->space)
        plane->rtnetlink = rtnetlink_create(vn, plane->space, &plane->kernel, &rtnetlink_env, err);
    if (plane->rtnetlink && config->fpm_port)
        plane->server = fpm_server_create(vn, plane->space, &plane->fpm, config, err);
    if (!plane->rtnetlink || (config->fpm_port && !plane->server)) {
        control_plane_destroy(plane);
        return NULL;
    }
    return plane;
}

void control_plane_destroy(struct control_plane *plane)
{
    if (!plane)
        return;
    fpm_server_destroy(plane->server);
    rtnetlink_destroy(plane->rtnetlink);
    learn_fini(&plane->fpm);
    learn_fini(&plane->kernel);
    namespace_close(plane->space);
    free(plane->neighbours);
    free(plane);
}

const char *control_plane_netns(const struct control_plane *plane)
{
    return namespace_name(plane->space);
}

json_t *control_plane_describe(const struct control_plane *plane)
{
    json_t *json = json_pack("{s:o}", "kernel", rtnetlink_describe(plane->rtnetlink));
    if (plane->server)
        json_object_set_new(json, "fpm", fpm_server_describe(plane->server));
    return json;
}
