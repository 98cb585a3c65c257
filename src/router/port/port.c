// Ports: see port.h.
#include "router/port/port.h"

#include "router/params.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char port_kinds[] = "vhost, tap, packet, xdp, pci, memif, vxlan, raw, vtep, ring, null, source";
static const struct port_kind *const kinds[] = {&port_vhost, &port_tap,  &port_packet, &port_xdp,   &port_pci, &port_memif,
                                                &port_ring,  &port_null, &port_source, &port_vxlan, &port_raw, &port_vtep};

static const struct port_kind *find_kind(const char *name)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (!strcmp(kinds[i]->name, name))
            return kinds[i];
    return NULL;
}

static struct port *open_kind(const struct port_kind *kind, const char *name, const json_t *params, int fd,
                              const struct port_env *env, struct tv_error *err)
{
    struct port *port = calloc(1, sizeof(*port));
    if (!port) {
        tv_error_set(err, -ENOMEM, "out of memory");
        return NULL;
    }
    port->kind = kind;
    port->env = *env;
    snprintf(port->name, sizeof(port->name), "%s", name);
    if (kind->open(port, params, fd, err)) {
        free(port);
        return NULL;
    }
    return port;
}

struct port *port_open(const char *name, const json_t *params, int fd, const struct port_env *env, struct tv_error *err)
{
    const char *kind_name;
    if (params_get_string(params, "kind", NULL, &kind_name, err))
        return NULL;
    const struct port_kind *kind = find_kind(kind_name);
    if (!kind) {
        tv_error_set(err, -EINVAL, "there is no kind of port '%s'; there are %s", kind_name, port_kinds);
        return NULL;
    }
    return open_kind(kind, name, params, fd, env, err);
}

struct port *port_open_punt(const char *name, int fd, const struct port_env *env, struct tv_error *err)
{
    return open_kind(&port_punt, name, NULL, fd, env, err);
}

void port_close(struct port *port)
{
    port->kind->close(port);
    free(port);
}
