// The engines there are. See engine.h.
#include "machine/engine/engine.h"

#include <errno.h>
#include <string.h>

static const struct engine_ops *const engines[] = {
    &engine_rv64,
#ifdef TRIVET_HAS_KVM
    &engine_kvm,
#endif
};

const struct engine_ops *engine_find(const char *name, struct tv_error *err)
{
    if (strcmp(name, "auto") == 0)
        return engines[0];
    for (size_t i = 0; i < sizeof(engines) / sizeof(engines[0]); i++)
        if (strcmp(engines[i]->name, name) == 0)
            return engines[i];
    tv_error_set(err, -EINVAL, "engine '%s' is unknown%s: there are 'rv64', 'kvm' (on x86-64) and 'auto'", name,
                 strcmp(name, "kvm") == 0 ? " on this host" : "");
    return NULL;
}
