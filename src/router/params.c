// Members of a request's parameters: see params.h.
#include "router/params.h"

#include <errno.h>
#include <string.h>

int params_get_string(const json_t *params, const char *key, const char *otherwise, const char **value, struct tv_error *err)
{
    const json_t *member = json_object_get(params, key);
    *value = member ? json_string_value(member) : otherwise;
    if (*value)
        return 0;
    return member ? tv_error_set(err, -EINVAL, "\"%s\" must be a string", key)
                  : tv_error_set(err, -EINVAL, "\"%s\" is missing, a string", key);
}

int params_get_u32(const json_t *params, const char *key, uint32_t otherwise, uint32_t least, uint32_t most, uint32_t *value,
                   struct tv_error *err)
{
    const json_t *member = json_object_get(params, key);
    *value = otherwise;
    if (!member)
        return 0;
    const json_int_t number = json_integer_value(member);
    if (!json_is_integer(member) || number < least || number > most)
        return tv_error_set(err, -EINVAL, "\"%s\" must be a number, %u to %u", key, least, most);
    *value = (uint32_t)number;
    return 0;
}

int params_get_name(const json_t *params, const char *key, size_t most, const char **value, struct tv_error *err)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    int r = params_get_string(params, key, NULL, value, err);
    if (r)
        return r;
    const size_t len = strlen(*value);
    if (!len || len > most || strspn(*value, letters) != len)
        return tv_error_set(err, -EINVAL, "\"%s\" is '%.40s'; a name has 1 to %zu letters, digits, '-', '_' and '.'", key, *value,
                            most);
    return 0;
}
