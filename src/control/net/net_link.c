// Connections to routers that come and go: see net_link.h.
#include "control/net/net_link.h"

#include "base/clock.h"
#include "base/log.h"

#include <string.h>
#include <unistd.h>

#define RETRY_NS (20 * NS_PER_MS)
#define REFUSED_NS (1 * NS_PER_S) // a router that answers, and is none for this machine

static void attached(void *arg, const json_t *result, const struct tv_error *err)
{
    struct net_link *link = arg;
    link->is_asked = false;
    if (!result) {
        log_event(LOG_WARN, "net", "not attached again", LOG_STR("why", err->text));
        link->is_away = true;
    }
    if (link->is_away && *link->links->control)
        loop_set_timer(link->links->timer, result ? 1 : REFUSED_NS, 0);
}

static bool try_one(struct net_links *links, unsigned i)
{
    int fd = rpc_connect(links->spec->nets[i].socket, NULL);
    if (fd < 0)
        return false;
    struct net_link *link = &links->links[i];
    link->is_asked = rpc_call_async(*links->control, "net.attach", json_pack("{s:s}", "name", links->spec->nets[i].name), &fd, 1, 0,
                                    attached, link) == 0;
    link->is_away = !link->is_asked;
    close(fd);
    return link->is_asked;
}

static void try_all(void *arg)
{
    struct net_links *links = arg;
    bool waits = false;
    for (unsigned i = 0; i < links->spec->n_nets && *links->control; i++)
        if (links->links[i].is_away && !links->links[i].is_asked)
            waits |= !try_one(links, i);
    if (waits)
        loop_set_timer(links->timer, RETRY_NS, 0);
}

int net_links_init(struct net_links *links, struct loop *loop, const struct machine_spec *spec, struct rpc_conn **control,
                   struct tv_error *err)
{
    *links = (struct net_links){.spec = spec, .control = control};
    for (unsigned i = 0; i < SPEC_NETS_MAX; i++)
        links->links[i].links = links;
    links->timer = loop_add_timer(loop, try_all, links, err);
    return links->timer ? 0 : err->code;
}

void net_links_fini(struct net_links *links)
{
    loop_remove(links->timer);
    links->timer = NULL;
}

void net_links_away(struct net_links *links, const char *name)
{
    for (unsigned i = 0; name && i < links->spec->n_nets; i++) {
        if (strcmp(links->spec->nets[i].name, name) != 0)
            continue;
        links->links[i].is_away = true;
        if (!links->links[i].is_asked)
            loop_set_timer(links->timer, 1, 0);
    }
}
