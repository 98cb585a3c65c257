// Any bytes as a YAML file: refused with the file's name and a message, or a struct whose every value keeps to its schema and whose
// values have lines.
#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "base/yaml_file.h"

struct disk {
    char *name, *size;
    uint8_t limit;
};

struct tenant {
    char *name;
    int16_t nice;
    bool on;
    int kind;
    struct disk *disks;
    uint32_t n_disks;
};

struct plan {
    struct tenant *tenants;
    uint32_t n_tenants;
    char **tags;
    uint32_t n_tags;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const cyaml_strval_t kinds[] = {{"one", 1}, {"two", 2}};
static const cyaml_schema_field_t disk_fields[] = {
    CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, struct disk, name, 1, 8),
    CYAML_FIELD_STRING_PTR("size", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct disk, size, 0, 6),
    CYAML_FIELD_UINT("limit", CYAML_FLAG_OPTIONAL, struct disk, limit),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t disk_value = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct disk, disk_fields)};
static const cyaml_schema_field_t tenant_fields[] = {
    CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, struct tenant, name, 1, 8),
    CYAML_FIELD_INT("nice", CYAML_FLAG_OPTIONAL, struct tenant, nice),
    CYAML_FIELD_BOOL("on", CYAML_FLAG_OPTIONAL, struct tenant, on),
    CYAML_FIELD_ENUM("kind", CYAML_FLAG_OPTIONAL, struct tenant, kind, kinds, 2),
    CYAML_FIELD_SEQUENCE_COUNT("disks", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct tenant, disks, n_disks, &disk_value, 0, 5),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t tenant_value = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct tenant, tenant_fields)};
static const cyaml_schema_value_t tag_value = {CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 0, 20)};
static const cyaml_schema_field_t plan_fields[] = {
    CYAML_FIELD_SEQUENCE_COUNT("tenants", CYAML_FLAG_POINTER, struct plan, tenants, n_tenants, &tenant_value, 1, 10),
    CYAML_FIELD_SEQUENCE_COUNT("tags", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct plan, tags, n_tags, &tag_value, 0, 4),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t schema = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct plan, plan_fields)};

static void check_plan(const struct plan *plan)
{
    assert(plan->n_tenants >= 1 && plan->n_tenants <= 10 && plan->n_tags <= 4);
    for (uint32_t i = 0; i < plan->n_tags; i++)
        assert(strlen(plan->tags[i]) <= 20);
    for (uint32_t i = 0; i < plan->n_tenants; i++) {
        const struct tenant *t = &plan->tenants[i];
        assert(strlen(t->name) >= 1 && strlen(t->name) <= 8 && t->kind >= 0 && t->kind <= 2 && t->n_disks <= 5);
        for (uint32_t j = 0; j < i; j++)
            assert(strcmp(t->name, plan->tenants[j].name) != 0);
        for (uint32_t j = 0; j < t->n_disks; j++)
            assert(strlen(t->disks[j].name) >= 1 && (!t->disks[j].size || strlen(t->disks[j].size) <= 6));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct yaml_file *file;
    struct tv_error err = {0};
    const int rc = yaml_file_parse("f", (const char *)data, size, &schema, &file, &err);
    if (rc) {
        assert(!file && rc == err.code && strncmp(err.text, "f:", 2) == 0 && !strchr(err.text, '\n'));
        return 0;
    }
    check_plan(yaml_file_data(file));
    static const char *const paths[] = {"",       "/",        "tenants",      "tenants/0", "tenants/a/disks/db/limit",
                                        "tags/1", "tags/x/y", "tenants//name"};
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        const unsigned line = yaml_file_line(file, paths[i]);
        assert(line >= 1 && line <= size + 1);
    }
    yaml_file_destroy(file);
    return 0;
}
