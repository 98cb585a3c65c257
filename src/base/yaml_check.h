// Checks a YAML document against a schema and writes it anew for libcyaml. Private to base.
#pragma once

#include "base/error.h"

#include <cyaml/cyaml.h>
#include <stdbool.h>
#include <yaml.h>

struct yaml_text { // the caller frees bytes
    char *bytes;
    size_t len, capacity;
};

// Writes the document as one line of flow YAML, named mappings as lists and without what counts as absent. Every fault is reported
// as "FILE:LINE: place: message".
int yaml_check(const char *file, yaml_document_t *document, const cyaml_schema_value_t *schema, struct yaml_text *out,
               struct tv_error *err);

// The schema of a list's entries when they have names, else NULL.
const cyaml_schema_field_t *yaml_named_fields(const cyaml_schema_value_t *list);
bool yaml_is_null(const yaml_node_t *node);
