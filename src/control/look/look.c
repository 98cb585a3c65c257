// Reading what machines and disks do: see look.h.
#include "control/look/look.h"

#include "base/rpc.h"
#include "control/cleanup.h"
#include "control/client.h"

#include <errno.h>
#include <string.h>

#define STORE_ANSWER_MS 5000

int look_open(struct look *look, const char *store_socket, struct tv_error *err)
{
    look->is_store = store_socket != NULL;
    look->fd = store_socket ? rpc_connect(store_socket, err) : client_connect(err);
    if (look->fd == -ECONNREFUSED && store_socket)
        return tv_error_set(err, look->fd, "%s: no store listens there; it is what trivet-store --control makes", store_socket);
    return look->fd < 0 ? look->fd : 0;
}

void look_close(struct look *look)
{
    if (look->fd >= 0)
        close(look->fd);
    look->fd = -1;
}

static void add_machine(int fd, json_t *machine)
{
    static const char *const of_status[] = {"resident_bytes", "uptime_ns", "engine"};
    const char *name = json_string_value(json_object_get(machine, "name"));
    cleanup_json json_t *status = NULL, *stats = NULL, *disks = NULL;
    struct tv_error err = {0};
    if (client_call_machine(fd, name, "machine.status", json_object(), -1, &status, &err) ||
        client_call_machine(fd, name, "machine.stats", json_object(), -1, &stats, &err))
        return; // it has just ended; the list says so next time
    json_object_set(machine, "vcpus", json_object_get(stats, "vcpus"));
    for (size_t i = 0; i < sizeof(of_status) / sizeof(of_status[0]); i++)
        json_object_set(machine, of_status[i], json_object_get(status, of_status[i]));
    if (client_call(fd, "machine.disks", json_pack("{s:s}", "name", name), &disks, &err) == 0 &&
        !json_is_true(json_object_get(disks, "late")))
        json_object_set(machine, "disks", json_object_get(disks, "disks"));
}

static int read_machines(int fd, json_t **machines, struct tv_error *err)
{
    cleanup_json json_t *list = NULL;
    int rc = client_call(fd, "machine.list", json_object(), &list, err);
    if (rc)
        return rc;
    *machines = json_incref(json_object_get(list, "machines"));
    size_t i;
    json_t *m;
    json_array_foreach(*machines, i, m)
    {
        if (json_integer_value(json_object_get(m, "pid")))
            add_machine(fd, m);
    }
    return 0;
}

static int read_store(int fd, json_t **machines, struct tv_error *err)
{
    cleanup_json json_t *list = NULL, *disks = json_array();
    int rc = rpc_call(fd, "disk.list", json_object(), NULL, 0, STORE_ANSWER_MS, &list, err);
    if (rc)
        return rc;
    size_t i;
    json_t *disk;
    json_array_foreach(list, i, disk)
    {
        json_t *stat = NULL, *params = json_pack("{s:O, s:b}", "name", json_object_get(disk, "name"), "histograms", true);
        rc = rpc_call(fd, "disk.stat", params, NULL, 0, STORE_ANSWER_MS, &stat, err);
        if (rc == 0)
            json_array_append_new(disks, stat);
        else if (rc != -ENOENT) // removed in between
            return rc;
    }
    *machines = json_pack("[{s:O}]", "disks", disks);
    return 0;
}

int look_read(const struct look *look, json_t **machines, struct tv_error *err)
{
    return look->is_store ? read_store(look->fd, machines, err) : read_machines(look->fd, machines, err);
}

int look_read_networks(const struct look *look, json_t **networks, struct tv_error *err)
{
    cleanup_json json_t *list = NULL;
    size_t i;
    json_t *n;
    *networks = NULL;
    int rc = look->is_store ? 0 : client_call(look->fd, "net.list", json_object(), &list, err);
    if (rc)
        return rc;
    *networks = list ? json_incref(json_object_get(list, "networks")) : json_array();
    json_array_foreach(*networks, i, n)
    {
        json_t *stat = NULL;
        struct tv_error none = {0}; // the router is just being started again: the network is told without it
        if (client_call(look->fd, "net.call", json_pack("{s:O, s:s}", "name", json_object_get(n, "name"), "method", "vn.stat"),
                        &stat, &none) == 0)
            json_object_set_new(n, "stat", stat);
    }
    return 0;
}

bool look_is_kept(const json_t *disk, const char **held_by)
{
    size_t i;
    json_t *verdict;
    *held_by = NULL;
    json_array_foreach(json_object_get(disk, "verdicts"), i, verdict)
    {
        if (json_is_true(json_object_get(verdict, "kept")))
            continue;
        *held_by = json_string_value(json_object_get(verdict, "held_by"));
        return false;
    }
    return true;
}
