// The machines that trivetd knows: see daemon.h.
#include "base/clock.h"
#include "control/cleanup.h"
#include "control/daemon/daemon.h"
#include "control/files.h"
#include "control/paths.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

struct daemon_machine *machine_find(const struct daemon *d, const char *name)
{
    for (struct daemon_machine *m = d->machines; m; m = m->next)
        if (strcmp(m->spec.name, name) == 0)
            return m;
    return NULL;
}

struct daemon_machine *machine_add(struct daemon *d, struct machine_spec *spec, struct tv_error *err)
{
    struct daemon_machine *m = calloc(1, sizeof(*m));
    if (!m) {
        spec_free(spec);
        tv_error_set(err, -ENOMEM, "no memory");
        return NULL;
    }
    m->timer = loop_add_timer(d->loop, machine_timer_expired, m, err);
    if (!m->timer) {
        spec_free(spec);
        free(m);
        return NULL;
    }
    m->daemon = d;
    m->spec = *spec;
    *spec = (struct machine_spec){0};
    m->pidfd = -1;
    m->exit_status = -1;
    struct daemon_machine **at = &d->machines;
    while (*at && strcmp((*at)->spec.name, m->spec.name) < 0)
        at = &(*at)->next;
    m->next = *at;
    *at = m;
    return m;
}

void machine_free(struct daemon_machine *m)
{
    for (struct daemon_machine **at = &m->daemon->machines; *at; at = &(*at)->next)
        if (*at == m) {
            *at = m->next;
            break;
        }
    daemon_store_abandon(m);
    daemon_nic_abandon(m);
    daemon_look_forget(m);
    machine_drop_launch(m);
    if (m->control)
        rpc_conn_destroy(m->control);
    loop_remove(m->watch);
    loop_remove(m->timer);
    if (m->pidfd >= 0)
        close(m->pidfd);
    spec_free(&m->spec);
    json_decref(m->unproven);
    free(m);
}

int machine_path(const struct daemon_machine *m, const char *file, char path[static PATH_MAX], struct tv_error *err)
{
    return path_format(path, err, "%s/machines/%s%s%s", m->daemon->run_dir, m->spec.name, file[0] ? "/" : "", file);
}

int machine_log_path(const struct daemon_machine *m, char path[static PATH_MAX], struct tv_error *err)
{
    return path_format(path, err, "%s/logs/%s.log", m->daemon->state_dir, m->spec.name);
}

void machine_remove(struct daemon_machine *m)
{
    char path[PATH_MAX];
    database_delete_machine(m->daemon->db, m->spec.name, NULL);
    if (machine_path(m, "", path, NULL) == 0)
        tree_remove(path, NULL);
    if (machine_log_path(m, path, NULL) == 0)
        unlink(path);
    machine_free(m);
}

int machine_record(const struct daemon_machine *m, struct tv_error *err)
{
    cleanup_json json_t *spec = spec_encode(&m->spec);
    cleanup_free char *text = json_dumps(spec, JSON_COMPACT);
    if (!text)
        return tv_error_set(err, -ENOMEM, "no memory");
    const struct database_machine row = {
        .name = m->spec.name,
        .spec = text,
        .wanted = m->wanted,
        .worker = m->worker,
        .exit_status = m->exit_status,
        .reason = m->reason,
        .restarts = m->restarts,
    };
    return database_put_machine(m->daemon->db, &row, err);
}

bool machine_is_up(const struct daemon_machine *m)
{
    return m->worker.pid || m->launch;
}

const char *machine_state_name(const struct daemon_machine *m)
{
    static const char *const names[] = {"stopped", "starting", "running", "stopping", "waiting", "failed"};
    return m->state == MACHINE_RUNNING && m->paused ? "paused" : names[m->state];
}

static void put_paths(const struct daemon_machine *m, json_t *json)
{
    char path[PATH_MAX];
    if (machine_path(m, "console.sock", path, NULL) == 0)
        json_object_set_new(json, "console", json_string(path));
    if (machine_path(m, "control.sock", path, NULL) == 0)
        json_object_set_new(json, "control", json_string(path));
    if (machine_log_path(m, path, NULL) == 0)
        json_object_set_new(json, "log", json_string(path));
}

json_t *machine_describe(const struct daemon_machine *m)
{
    json_t *json = json_pack("{s:s, s:s, s:s, s:b, s:i, s:I, s:s, s:i, s:i}", "name", m->spec.name, "tenant", m->spec.tenant,
                             "state", machine_state_name(m), "wanted", m->wanted, "cpus", (int)m->spec.cpus, "memory_bytes",
                             (json_int_t)m->spec.memory_bytes, "restart", spec_restart_name(m->spec.restart), "restarts",
                             (int)m->restarts, "pid", (int)m->worker.pid);
    if (m->exit_status >= 0)
        json_object_set_new(json, "exit", json_integer(m->exit_status));
    if (m->reason[0])
        json_object_set_new(json, "reason", json_string(m->reason));
    if (m->worker.pid && m->engine[0]) {
        json_object_set_new(json, "engine", json_string(m->engine));
        json_object_set_new(json, "engine_why", json_string(m->engine_why));
    }
    put_paths(m, json);
    return json;
}
