// What is in the memory of an x86-64 machine when it starts: see machine.h. On the loop's thread, the machine is parked.
#include "machine/loader/loader.h"
#include "machine/machine.h"

static void add_range(struct loader_pc_request *r, uint64_t addr, uint64_t end, bool is_ram)
{
    if (end > addr)
        r->ranges[r->n_ranges++] = (struct loader_pc_range){.addr = addr, .size_bytes = end - addr, .is_ram = is_ram};
}

int machine_boot_pc(struct machine *m, const char *append, struct tv_error *err)
{
    uint64_t size_bytes = m->config.memory_bytes, low_end = size_bytes < PC_LOW_RAM_END ? size_bytes : PC_LOW_RAM_END;
    struct loader_pc_request request = {.mem = &m->mem,
                                        .kernel = {m->config.kernel_fd, m->kernel_name},
                                        .initrd = {m->config.initrd_fd, m->initrd_name},
                                        .append = append,
                                        .rsdp_addr = PC_TABLES_BASE,
                                        .data_addr = PC_BOOT_DATA,
                                        .data_size_bytes = PC_BOOT_DATA_SIZE};
    struct loader_pc_result loaded;
    add_range(&request, 0, PC_BASE_RAM_END, true);
    add_range(&request, PC_BASE_RAM_END, PC_KERNEL_BASE, false);
    request.usable = request.n_ranges;
    add_range(&request, PC_KERNEL_BASE, low_end, true);
    add_range(&request, PC_ECAM_BASE, PC_ECAM_BASE + PC_ECAM_SIZE, false);
    add_range(&request, PC_HIGH_RAM_BASE, PC_HIGH_RAM_BASE + size_bytes - low_end, true);
    int rc = board_put_firmware(m->board, err);
    if (rc < 0)
        return rc;
    rc = loader_pc_load(&request, &loaded, err);
    if (rc < 0)
        return rc;
    const struct engine_start start = {.entry = loaded.entry, .arg = loaded.ebx_esi, .magic = loaded.eax};
    m->engine->ops->reset(m->engine, &start);
    return 0;
}
