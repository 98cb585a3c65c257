// The device tree's /cpus node (bindings: riscv/cpus.yaml, riscv/extensions.yaml). With libfdt's read-write calls.
#include "machine/engine/rv64/rv64.h"

#include <errno.h>
#include <libfdt.h>
#include <stdio.h>
#include <string.h>

// In the canonical order of the ISA string.
static const char *const extensions[] = {
    "i",     "m",     "a",   "f",   "d",   "c",   "zicbom", "zicboz", "zicntr", "zicond",  "zicsr",   "zifencei", "zihintpause",
    "zihpm", "zawrs", "zba", "zbb", "zbc", "zbs", "ssaia",  "sstc",   "svade",  "svinval", "svnapot", "svpbmt",
};
#define N_EXTENSIONS (sizeof(extensions) / sizeof(extensions[0]))

// "rv64imafdc_zicbom_..." for those who do not know riscv,isa-extensions.
static void isa_string(char *buf, size_t size)
{
    size_t used = (size_t)snprintf(buf, size, "rv64");
    for (size_t i = 0; i < N_EXTENSIONS && used < size; i++)
        used += (size_t)snprintf(buf + used, size - used, "%s%s", strlen(extensions[i]) > 1 ? "_" : "", extensions[i]);
}

static int set_string(void *fdt, int node, const char *property, const char *value)
{
    return fdt_setprop(fdt, node, property, value, (int)strlen(value) + 1);
}

static int set_extensions(void *fdt, int node)
{
    int ret = 0;
    for (size_t i = 0; i < N_EXTENSIONS && !ret; i++)
        ret = fdt_appendprop(fdt, node, "riscv,isa-extensions", extensions[i], (int)strlen(extensions[i]) + 1);
    return ret;
}

static int add_interrupt_controller(void *fdt, int cpu, uint32_t phandle)
{
    int node = fdt_add_subnode(fdt, cpu, "interrupt-controller");
    if (node < 0)
        return node;
    int ret = fdt_setprop_u32(fdt, node, "#interrupt-cells", 1);
    ret = ret ? ret : fdt_setprop_empty(fdt, node, "interrupt-controller");
    ret = ret ? ret : set_string(fdt, node, "compatible", "riscv,cpu-intc");
    return ret ? ret : fdt_setprop_u32(fdt, node, "phandle", phandle);
}

static int add_cpu(void *fdt, int cpus, unsigned id, uint32_t phandle)
{
    char name[16], isa[256];
    snprintf(name, sizeof(name), "cpu@%x", id);
    isa_string(isa, sizeof(isa));
    int node = fdt_add_subnode(fdt, cpus, name);
    if (node < 0)
        return node;
    int ret = set_string(fdt, node, "device_type", "cpu");
    ret = ret ? ret : fdt_setprop_u32(fdt, node, "reg", id);
    ret = ret ? ret : set_string(fdt, node, "status", "okay");
    ret = ret ? ret : set_string(fdt, node, "compatible", "riscv");
    ret = ret ? ret : set_string(fdt, node, "riscv,isa", isa);
    ret = ret ? ret : set_string(fdt, node, "riscv,isa-base", "rv64i");
    ret = ret ? ret : set_extensions(fdt, node);
    ret = ret ? ret : set_string(fdt, node, "mmu-type", "riscv,sv57");
    ret = ret ? ret : fdt_setprop_u32(fdt, node, "riscv,cbom-block-size", RV64_CACHE_BLOCK_BYTES);
    ret = ret ? ret : fdt_setprop_u32(fdt, node, "riscv,cboz-block-size", RV64_CACHE_BLOCK_BYTES);
    return ret ? ret : add_interrupt_controller(fdt, node, phandle);
}

// -ENOSPC when the tree's buffer is too small.
int rv64_describe(const struct engine *engine, void *fdt, uint32_t cpu_phandle_base)
{
    const struct rv64_engine *e = (const struct rv64_engine *)engine;
    int cpus = fdt_add_subnode(fdt, 0, "cpus");
    int ret = cpus < 0 ? cpus : fdt_setprop_u32(fdt, cpus, "#address-cells", 1);
    ret = ret ? ret : fdt_setprop_u32(fdt, cpus, "#size-cells", 0);
    ret = ret ? ret : fdt_setprop_u32(fdt, cpus, "timebase-frequency", RV64_TIMEBASE_HZ);
    // A new subnode comes first, so the last one is added first.
    for (unsigned id = e->config.n_vcpus; id-- > 0 && !ret;)
        ret = add_cpu(fdt, cpus, id, cpu_phandle_base + id);
    return ret ? -ENOSPC : 0;
}
