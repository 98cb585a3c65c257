// YAML files by schema: read, checked with messages that name file, line and remedy, and filled into structs by libcyaml.
//
// The schema is libcyaml's. Beyond it:
// - Where it has a sequence of mappings whose first field is "name", the file may have either the list or a mapping from names to
//   the rest (`disks: {db: {...}}`), in the manner of compose. Names are unique, and letters, digits, '-', '_' and '.', beginning
//   with a letter or digit.
// - A field without a value (`db:`) counts as absent; an entry without one as an empty mapping.
// - Unknown and repeated keys, wrong types, numbers out of range are refused with the place: `a.yaml:14: disks.db: ...`.
// A file has at most YAML_FILE_BYTES_MAX bytes and one document. CYAML_FLAGS and CYAML_BITFIELD are not supported (-ENOTSUP).
//
// What the file says and the schema cannot tell is checked by the caller, who reports it with yaml_file_error(). Any thread, one at
// a time.
#pragma once

#include "base/error.h"

#include <cyaml/cyaml.h>
#include <stddef.h>

#define YAML_FILE_BYTES_MAX (1u << 20)
#define YAML_LIST_MAX 4096u

struct yaml_file;

// schema is of a pointer to a mapping (CYAML_VALUE_MAPPING with CYAML_FLAG_POINTER) and outlives the file. -errno with err on
// failure.
int yaml_file_load(const char *path, const cyaml_schema_value_t *schema, struct yaml_file **file, struct tv_error *err);
// The same of text in memory; `name` stands for the file in messages.
int yaml_file_parse(const char *name, const char *text, size_t len_bytes, const cyaml_schema_value_t *schema,
                    struct yaml_file **file, struct tv_error *err);
void yaml_file_destroy(struct yaml_file *file); // frees the data too; NULL is fine

void *yaml_file_data(const struct yaml_file *file); // the struct that the schema describes; the file's

// The line of a value by its path, as "tenants/a/disks/db/limit": keys, and in a list an index from 0 or an entry's name. What is
// not there has the line of the nearest thing around it that is.
unsigned yaml_file_line(const struct yaml_file *file, const char *path);

// Sets -EINVAL and "FILE:LINE: message"; returns -EINVAL.
int yaml_file_error(const struct yaml_file *file, const char *path, struct tv_error *err, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
