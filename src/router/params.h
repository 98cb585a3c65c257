// Members of a request's parameters, checked. 0, or -EINVAL with an err that names the member and what it must be.
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <stdint.h>

// Absent: `otherwise`; when that is NULL the member must be there. The value is the parameters'.
int params_get_string(const json_t *params, const char *key, const char *otherwise, const char **value, struct tv_error *err);
int params_get_u32(const json_t *params, const char *key, uint32_t otherwise, uint32_t least, uint32_t most, uint32_t *value,
                   struct tv_error *err);
// Names of networks and ports: letters, digits, '-', '_' and '.', at most `most` of them.
int params_get_name(const json_t *params, const char *key, size_t most, const char **value, struct tv_error *err);
