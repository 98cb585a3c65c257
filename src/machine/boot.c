// What is in memory and registers when a machine starts: see machine.h. On the loop's thread, the machine is parked.
#include "machine/loader/loader.h"
#include "machine/machine.h"
#include "machine/snapshot/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FDT_ROOM_BYTES (256u << 10) // 64 vcpus take about 50 KiB
#define COMMAND_LINE_BYTES (CONFIG_APPEND_MAX + 32)

#define PANIC_WARM "reboot=panic_warm"

// Does the command line have a word that begins with this?
static bool has_word(const char *append, const char *start)
{
    for (const char *at = append; (at = strstr(at, start)); at++)
        if (at == append || at[-1] == ' ')
            return true;
    return false;
}

// Linux asks the SBI for a cold reboot and gives no reason, whether it was told to or has panicked (with panic= on its command
// line; without it stands still). With reboot=panic_warm a panic asks for a warm one
// (Documentation/admin-guide/kernel-parameters.txt), so whoever says panic= gets that word too, unless the line has its own about
// reboots.
static void command_line(struct machine *m, char line[static COMMAND_LINE_BYTES])
{
    const char *append = m->config.append;
    bool add = has_word(append, "panic=") && !has_word(append, "reboot=");
    m->warm_is_panic = add || has_word(append, PANIC_WARM);
    snprintf(line, COMMAND_LINE_BYTES, "%s%s", add ? PANIC_WARM " " : "", append);
}

int machine_boot(struct machine *m, struct tv_error *err)
{
    char line[COMMAND_LINE_BYTES];
    struct loader_request request = {.mem = &m->mem,
                                     .ram_base = MAP_RAM_BASE,
                                     .ram_size_bytes = m->config.memory_bytes,
                                     .kernel = {m->config.kernel_fd, m->kernel_name},
                                     .initrd = {m->config.initrd_fd, m->initrd_name},
                                     .fdt_size_bytes = FDT_ROOM_BYTES};
    struct loader_result loaded;
    void *fdt;
    size_t fdt_len_bytes;
    command_line(m, line);
    if (m->engine_ops->arch == ENGINE_X86_64)
        return machine_boot_pc(m, line, err);
    int rc = loader_load(&request, &loaded, err);
    if (rc < 0)
        return rc;
    struct board_boot boot = {
        .engine = m->engine, .append = line, .initrd_addr = loaded.initrd_addr, .initrd_len_bytes = loaded.initrd_size_bytes};
    rc = board_device_tree(m->board, &boot, &fdt, &fdt_len_bytes, err);
    if (rc < 0)
        return rc;
    if (fdt_len_bytes <= FDT_ROOM_BYTES) {
        memcpy(guest_memory_view(&m->mem, loaded.fdt_addr, fdt_len_bytes), fdt, fdt_len_bytes);
        m->engine->ops->reset(m->engine, &(struct engine_start){.entry = loaded.entry, .arg = loaded.fdt_addr});
    } else {
        rc = tv_error_set(err, -ENOSPC, "the device tree takes %zu bytes of %u", fdt_len_bytes, FDT_ROOM_BYTES);
    }
    free(fdt);
    return rc;
}

// As it was when the machine was made. Huge pages are kept: who gives them back may not get them again.
static int clear_memory(struct machine *m, struct tv_error *err)
{
    int rc = 0;
    if (m->config.hugepages)
        memset(machine_ram(m), 0, m->config.memory_bytes);
    else
        rc = fallocate(m->mem.regions[0].fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)m->config.memory_bytes);
    return rc < 0 ? tv_error_set(err, -errno, "clearing the memory: %s", strerror(errno)) : 0;
}

int machine_reboot(struct machine *m, struct tv_error *err)
{
    board_reset(m->board); // first: nobody writes to memory any more
    console_reset_input(m->console);
    int rc = clear_memory(m, err);
    return rc < 0 ? rc : machine_boot(m, err);
}

// Says what differs, in the words of the configuration.
static int identity_compare(const json_t *saved, const json_t *present, struct tv_error *err)
{
    const char *key;
    json_t *value;
    if (!json_is_object(saved))
        return tv_error_set(err, -EINVAL, "saved machine: its configuration is no object; the file is damaged");
    json_object_foreach((json_t *)present, key, value)
    {
        const json_t *was = json_object_get(saved, key);
        if (json_equal(was, value) || (!was && json_array_size(value) == 0)) // "nets" came later
            continue;
        char *was_text = was ? json_dumps(was, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        int rc = tv_error_set(err, -EINVAL, "saved machine: had %s %.150s, this one has %.150s; load it into a machine like it",
                              key, was_text ? was_text : "unknown", text ? text : "another");
        free(was_text);
        free(text);
        return rc;
    }
    return 0;
}

static int check_identity(struct machine *m, struct snapshot_reader *reader, struct tv_error *err)
{
    size_t len_bytes;
    const char *text = snapshot_reader_config(reader, &len_bytes);
    char *mine = machine_identity(m);
    json_t *saved = json_loadb(text, len_bytes, 0, NULL), *present = mine ? json_loads(mine, 0, NULL) : NULL;
    int rc = present ? identity_compare(saved, present, err) : tv_error_set(err, -ENOMEM, "saved machine: no memory");
    json_decref(saved);
    json_decref(present);
    free(mine);
    return rc;
}

static int load_state(struct machine *m, struct snapshot_reader *reader, struct tv_error *err)
{
    size_t len_bytes;
    const void *buf = snapshot_reader_state(reader, &len_bytes);
    struct state *s = state_create_load(buf, len_bytes);
    if (!s)
        return tv_error_set(err, -ENOMEM, "saved machine: no memory");
    machine_state(m, s);
    int rc = state_finish(s, NULL, NULL, err);
    state_destroy(s);
    return rc < 0 ? (tv_error_prefix(err, "saved machine"), rc) : 0;
}

int machine_restore(struct machine *m, struct tv_error *err)
{
    struct snapshot_reader *reader = snapshot_reader_create(m->config.restore_fd, err);
    if (!reader)
        return err->code;
    m->engine->ops->reset(m->engine, &(struct engine_start){0}); // whatever the stream does not tell is as after power-on
    int rc = check_identity(m, reader, err);
    if (rc == 0)
        rc = snapshot_reader_load_ram(reader, machine_ram(m), m->config.memory_bytes, err);
    if (rc == 0)
        rc = load_state(m, reader, err);
    if (rc == 0)
        board_new_generation(m->board);
    snapshot_reader_destroy(reader);
    return rc;
}
