// What a machine has counted, as machine.stats answers it. On the loop's thread.
#include "machine/machine.h"

#include <jansson.h>
#include <stddef.h>

struct figure {
    const char *name;
    size_t offset;
};

#define AT(member) offsetof(struct engine_counters, member)
static const struct figure vcpu_figures[] = {
    {"instructions", AT(instructions)},
    {"mmio_exits", AT(mmio_exits)},
    {"hypercalls", AT(hypercalls)},
    {"traps", AT(traps)},
    {"interrupts", AT(interrupts)},
    {"wfi", AT(wfi)},
    {"exits", AT(exits)},
    {"tlb_misses", AT(tlb_misses)},
    {"page_walks", AT(page_walks)},
    {"blocks_decoded", AT(blocks_decoded)},
    {"insns_decoded", AT(insns_decoded)},
    {"links", AT(links)},
    {"jump_misses", AT(jump_misses)},
    {"steps", AT(steps)},
    {"code_fences", AT(code_fences)},
    {"memory_fences", AT(memory_fences)},
};
#undef AT

static const char *const left_names[ENGINE_LEFT_CAUSES] = {
    [ENGINE_LEFT_WFI] = "wfi",     [ENGINE_LEFT_INTERRUPT] = "interrupt", [ENGINE_LEFT_FENCE] = "fence",
    [ENGINE_LEFT_KICK] = "kick",   [ENGINE_LEFT_STOPPED] = "stopped",     [ENGINE_LEFT_FULL] = "full",
    [ENGINE_LEFT_FLOAT] = "float",
};

static void put(json_t *object, const char *key, uint64_t value)
{
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

static json_t *by_name(const char *const *names, const uint64_t *values, size_t n)
{
    json_t *object = json_object();
    for (size_t i = 0; names && i < n; i++)
        if (names[i])
            put(object, names[i], values[i]);
    return object;
}

static json_t *vcpu_stats(const struct machine *m, unsigned vcpu)
{
    struct engine_counters c = {0};
    json_t *object = json_object();
    m->engine->ops->counters(m->engine, vcpu, &c);
    for (size_t i = 0; i < sizeof(vcpu_figures) / sizeof(vcpu_figures[0]); i++)
        put(object, vcpu_figures[i].name, *(const uint64_t *)(const void *)((const char *)&c + vcpu_figures[i].offset));
    put(object, "cpu_ns", vcpus_cpu_ns(m->vcpus, vcpu));
    json_object_set_new(object, "left_code", by_name(left_names, c.left, ENGINE_LEFT_CAUSES));
    json_object_set_new(object, "trap_causes", by_name(m->engine->ops->trap_names, c.trap_causes, ENGINE_TRAP_CAUSES));
    return object;
}

static json_t *confinement(void)
{
    const struct confine_state *s = confine_state();
    return json_pack("{s:b, s:b, s:b, s:i, s:s}", "seccomp", s->seccomp, "namespaces", s->namespaces, "user", s->user, "landlock",
                     s->landlock, "lacking", s->lacking);
}

struct json_t *machine_stats(const struct machine *m)
{
    json_t *vcpus = json_array(), *disks = json_array(), *nets = json_array(), *code = json_object();
    struct engine_code c;
    m->engine->ops->code(m->engine, &c);
    put(code, "room_bytes", c.room_bytes);
    put(code, "used_bytes", c.used_bytes);
    put(code, "thrown_away", c.thrown_away);
    for (unsigned i = 0; i < m->config.cpus; i++)
        json_array_append_new(vcpus, vcpu_stats(m, i));
    for (unsigned i = 0; i < m->config.n_disks; i++)
        json_array_append_new(disks, json_pack("{s:s}", "name", m->config.disks[i].name));
    for (unsigned i = 0; i < m->config.n_nets; i++)
        json_array_append_new(nets, json_pack("{s:s, s:s, s:b}", "name", m->config.nets[i].name, "mac", m->config.nets[i].mac_text,
                                              "attached", machine_net_is_attached(m, i)));
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "vcpus", vcpus, "code", code, "disks", disks, "nets", nets, "confinement",
                     confinement());
}
