// The devices in the slots of the machine's PCIe host: see machine.h. On the loop's thread.
#include "machine/machine.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

int machine_add_devices(struct machine *m, struct tv_error *err)
{
    if (m->config.n_disks > 0)
        return tv_error_set(err, -ENOTSUP, "disks: this engine's board has no disk controller yet");
    return 0;
}

bool machine_ask_powerdown(struct machine *m)
{
    (void)m;
    return false;
}

bool machine_disk_is_attached(const struct machine *m, unsigned disk)
{
    (void)m;
    (void)disk;
    return false;
}

int machine_attach_disk(struct machine *m, const char *name, int fd, struct tv_error *err)
{
    close(fd);
    return tv_error_set(err, -ENOENT, "machine '%s': has no disk '%s'", m->config.name, name);
}
