// Saving a machine, a step a round of the loop, so that others are served meanwhile: see machine.h.
#include "machine/machine.h"
#include "machine/snapshot/snapshot.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct save {
    struct machine *m;
    int fd;
    char *identity;
    void *state;
    struct snapshot_writer *writer;
    machine_saved_fn *saved;
    void *arg;
};

char *machine_identity(const struct machine *m)
{
    json_t *disks = json_array(), *nets = json_array();
    for (unsigned i = 0; i < m->config.n_disks; i++)
        json_array_append_new(
            disks, json_pack("{s:s, s:I}", "name", m->config.disks[i].name, "queues", (json_int_t)m->config.disks[i].queues));
    for (unsigned i = 0; i < m->config.n_nets; i++)
        json_array_append_new(nets, json_pack("{s:s, s:s, s:I, s:I}", "name", m->config.nets[i].name, "mac",
                                              m->config.nets[i].mac_text, "mtu_bytes", (json_int_t)m->config.nets[i].mtu_bytes,
                                              "queues", (json_int_t)m->config.nets[i].queues));
    json_t *root = json_pack("{s:s, s:I, s:I, s:o, s:o}", "engine", m->engine->ops->name, "cpus", (json_int_t)m->config.cpus,
                             "memory_bytes", (json_int_t)m->config.memory_bytes, "disks", disks, "nets", nets);
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    return text;
}

void machine_state(struct machine *m, struct state *s)
{
    board_state(m->board, s); // before the engine and before RAM: requests that others have in flight end here
    m->engine->ops->state(m->engine, s);
    state_section_begin(s, "machine", 1);
    state_bool(s, "warm_is_panic", &m->warm_is_panic);
    state_bool(s, "terminal_in_use", &m->terminal_in_use);
    state_section_end(s);
    console_state(m->console, s);
}

static int collect_state(struct machine *m, void **buf, size_t *len_bytes, struct tv_error *err)
{
    struct state *s = state_create_save();
    if (!s)
        return tv_error_set(err, -ENOMEM, "saving: no memory");
    machine_state(m, s);
    int rc = state_finish(s, buf, len_bytes, err);
    state_destroy(s);
    return rc < 0 ? (tv_error_prefix(err, "saving"), rc) : 0;
}

static int save_begin(struct save *save, struct tv_error *err)
{
    struct machine *m = save->m;
    struct snapshot_contents contents = {
        .ram_fd = m->mem.regions[0].fd, .ram = machine_ram(m), .ram_size_bytes = m->config.memory_bytes};
    int rc = collect_state(m, &save->state, &contents.state_len_bytes, err);
    if (rc < 0)
        return rc;
    save->identity = machine_identity(m);
    if (!save->identity)
        return tv_error_set(err, -ENOMEM, "saving: no memory");
    contents.state = save->state;
    contents.config = save->identity;
    contents.config_len_bytes = strlen(save->identity);
    save->writer = snapshot_writer_create(save->fd, &contents, err);
    return save->writer ? 0 : err->code;
}

static void save_finish(struct save *save, const struct tv_error *err)
{
    struct stat st = {0};
    if (err->code == 0 && fstat(save->fd, &st) < 0)
        st.st_size = 0;
    snapshot_writer_destroy(save->writer);
    close(save->fd);
    free(save->state);
    free(save->identity);
    save->saved(save->arg, (uint64_t)st.st_size, err);
    free(save);
}

static void save_step(void *arg)
{
    struct save *save = arg;
    struct tv_error err = {0};
    uint64_t done_bytes, total_bytes;
    int rc = snapshot_writer_step(save->writer, &err);
    snapshot_writer_progress(save->writer, &done_bytes, &total_bytes);
    control_tell_progress(save->m->control, "save", done_bytes, total_bytes);
    if (rc == 1 && loop_post(save->m->loop, save_step, save) < 0)
        rc = tv_error_set(&err, -ENOMEM, "saving: no memory");
    if (rc != 1)
        save_finish(save, &err);
}

void machine_save(struct machine *m, int fd, machine_saved_fn *saved, void *arg)
{
    struct tv_error err = {0};
    struct save *save = calloc(1, sizeof(*save));
    if (!save) {
        close(fd);
        tv_error_set(&err, -ENOMEM, "saving: no memory");
        saved(arg, 0, &err);
        return;
    }
    *save = (struct save){.m = m, .fd = fd, .saved = saved, .arg = arg};
    if (save_begin(save, &err) < 0)
        save_finish(save, &err);
    else
        save_step(save);
}
