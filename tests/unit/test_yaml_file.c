// YAML by schema: structs are filled, and each fault is told with file, line, place and remedy.
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/yaml_file.h"

enum policy { POLICY_NEVER, POLICY_ALWAYS };

struct disk {
    char *name, *size;
    uint32_t limit;
    bool read_only;
};

struct tenant {
    char *name;
    enum policy restart;
    struct disk *disks;
    uint32_t n_disks;
    int16_t nice;
    double share;
    char **tags;
    uint32_t n_tags;
};

struct plan {
    struct tenant *tenants;
    uint32_t n_tenants;
};

static const cyaml_strval_t policies[] = {{"never", POLICY_NEVER}, {"always", POLICY_ALWAYS}};

static const cyaml_schema_field_t disk_fields[] = {
    CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, struct disk, name, 1, 32),
    CYAML_FIELD_STRING_PTR("size", CYAML_FLAG_POINTER, struct disk, size, 0, CYAML_UNLIMITED),
    CYAML_FIELD_UINT("limit", CYAML_FLAG_OPTIONAL, struct disk, limit),
    CYAML_FIELD_BOOL("read_only", CYAML_FLAG_OPTIONAL, struct disk, read_only),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t disk_value = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct disk, disk_fields)};

static const cyaml_schema_value_t tag_value = {CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 0, CYAML_UNLIMITED)};

static const cyaml_schema_field_t tenant_fields[] = {
    CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, struct tenant, name, 1, 32),
    CYAML_FIELD_ENUM("restart", CYAML_FLAG_OPTIONAL, struct tenant, restart, policies, 2),
    CYAML_FIELD_SEQUENCE_COUNT("disks", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct tenant, disks, n_disks, &disk_value, 0,
                               CYAML_UNLIMITED),
    CYAML_FIELD_INT("nice", CYAML_FLAG_OPTIONAL, struct tenant, nice),
    CYAML_FIELD_FLOAT("share", CYAML_FLAG_OPTIONAL, struct tenant, share),
    CYAML_FIELD_SEQUENCE_COUNT("tags", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct tenant, tags, n_tags, &tag_value, 0, 3),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t tenant_value = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct tenant, tenant_fields)};

static const cyaml_schema_field_t plan_fields[] = {
    CYAML_FIELD_SEQUENCE_COUNT("tenants", CYAML_FLAG_POINTER, struct plan, tenants, n_tenants, &tenant_value, 1, CYAML_UNLIMITED),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t plan_schema = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct plan, plan_fields)};

static const char good[] = "# two tenants\n"                  // 1
                           "tenants:\n"                       // 2
                           "  a:\n"                           // 3
                           "    restart: always\n"            // 4
                           "    nice: -5\n"                   // 5
                           "    share: 1.5\n"                 // 6
                           "    tags: [x, \"y \\\"z\\\"\"]\n" // 7
                           "    disks:\n"                     // 8
                           "      db:\n"                      // 9
                           "        size: 10G\n"              // 10
                           "        limit: 40\n"              // 11
                           "        read_only: yes\n"         // 12
                           "      log: {size: 1G, limit: }\n" // 13
                           "  b:\n";                          // 14

static void test_good(void **state)
{
    (void)state;
    struct yaml_file *file;
    struct tv_error err = {0};
    if (yaml_file_parse("a.yaml", good, sizeof(good) - 1, &plan_schema, &file, &err) != 0)
        fail_msg("%s", err.text);
    const struct plan *plan = yaml_file_data(file);
    assert_int_equal(plan->n_tenants, 2);
    const struct tenant *a = &plan->tenants[0], *b = &plan->tenants[1];
    assert_string_equal(a->name, "a");
    assert_int_equal(a->restart, POLICY_ALWAYS);
    assert_int_equal(a->nice, -5);
    assert_true(a->share > 1.49 && a->share < 1.51);
    assert_int_equal(a->n_tags, 2);
    assert_string_equal(a->tags[1], "y \"z\"");
    assert_int_equal(a->n_disks, 2);
    assert_string_equal(a->disks[0].name, "db");
    assert_string_equal(a->disks[0].size, "10G");
    assert_int_equal(a->disks[0].limit, 40);
    assert_true(a->disks[0].read_only);
    assert_string_equal(a->disks[1].name, "log");
    assert_int_equal(a->disks[1].limit, 0);
    assert_string_equal(b->name, "b");
    assert_int_equal(b->n_disks, 0);

    assert_int_equal(yaml_file_line(file, "tenants/a/disks/db/limit"), 11);
    assert_int_equal(yaml_file_line(file, "tenants/a/disks/db"), 9);
    assert_int_equal(yaml_file_line(file, "tenants/a/disks/log/size"), 13);
    assert_int_equal(yaml_file_line(file, "tenants/a/disks/db/nothing"), 9);
    assert_int_equal(yaml_file_line(file, "tenants/b/disks"), 14);
    assert_int_equal(yaml_file_line(file, "tenants/a/tags/1"), 7);
    assert_int_equal(yaml_file_error(file, "tenants/a/disks/db/limit", &err, "limit %d is below", 40), -EINVAL);
    assert_string_equal(err.text, "a.yaml:11: limit 40 is below");
    yaml_file_destroy(file);
}

static void test_list_form(void **state)
{
    (void)state;
    const char text[] = "tenants:\n- name: a\n  disks:\n  - name: db\n    size: 1G\n  - {size: 2G, name: log}\n- name: b\n";
    struct yaml_file *file;
    struct tv_error err = {0};
    if (yaml_file_parse("a.yaml", text, sizeof(text) - 1, &plan_schema, &file, &err) != 0)
        fail_msg("%s", err.text);
    const struct plan *plan = yaml_file_data(file);
    assert_int_equal(plan->n_tenants, 2);
    assert_string_equal(plan->tenants[0].disks[1].name, "log");
    assert_int_equal(yaml_file_line(file, "tenants/a/disks/log/size"), 6);
    assert_int_equal(yaml_file_line(file, "tenants/0/disks/0/size"), 5);
    assert_int_equal(yaml_file_line(file, "tenants/b"), 7);
    yaml_file_destroy(file);
}

static void test_faults(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "f: the file is empty"},
        {"# nothing\n\n", "f: the file is empty"},
        {"---\n", "f: the file is empty"},
        {"tenants:\n  a:\n    disk: 1\n", "f:3: tenants.a: unknown key 'disk'; known here: restart, disks, nice, share, tags"},
        {"tenants:\n  a:\n    name: b\n", "f:3: tenants.a: unknown key 'name'; known here: restart, disks, nice, share, tags"},
        {"tenant:\n", "f:1: unknown key 'tenant'; known here: tenants"},
        {"tenants:\n", "f:1: tenants: has no value"},
        {"tenants: {}\n", "f:1: tenants: has 0 entries; at least 1 are needed"},
        {"tenants:\n  a:\n    disks:\n      db: {}\n", "f:4: tenants.a.disks.db: 'size' is missing"},
        {"tenants:\n- disks: []\n", "f:2: tenants.0: 'name' is missing"},
        {"tenants: 5\n", "f:1: tenants: must be a list ('- ' lines) or a mapping of names, not a single value"},
        {"- a\n", "f:1: must be a mapping ('key: value' lines), not a list ('- ' lines)"},
        {"tenants:\n  a: 1\n", "f:2: tenants.a: must be a mapping ('key: value' lines), not a single value"},
        {"tenants: {a: {nice: [1]}}\n", "f:1: tenants.a.nice: must be a whole number, not a list ('- ' lines)"},
        {"tenants: {a: {nice: 32768}}\n", "f:1: tenants.a.nice: '32768' is out of range; at most 32767 is possible"},
        {"tenants: {a: {nice: -32769}}\n", "f:1: tenants.a.nice: '-32769' is out of range; at least -32768 is possible"},
        {"tenants: {a: {nice: 1x}}\n", "f:1: tenants.a.nice: '1x' is not a whole number"},
        {"tenants: {a: {nice: 010}}\n", "f:1: tenants.a.nice: '010' is not a whole number"},
        {"tenants: {a: {disks: {d: {size: 1, limit: -1}}}}\n",
         "f:1: tenants.a.disks.d.limit: '-1' is not a whole number of 0 or more"},
        {"tenants: {a: {disks: {d: {size: 1, limit: 99999999999999999999}}}}\n",
         "f:1: tenants.a.disks.d.limit: '99999999999999999999' is out of range; at most 4294967295 is possible"},
        {"tenants: {a: {disks: {d: {size: 1, read_only: maybe}}}}\n",
         "f:1: tenants.a.disks.d.read_only: must be true or false, not 'maybe'"},
        {"tenants: {a: {share: 1.5.2}}\n", "f:1: tenants.a.share: '1.5.2' is not a number"},
        {"tenants: {a: {restart: often}}\n", "f:1: tenants.a.restart: 'often' is none of: never, always"},
        {"tenants: {a: {tags: [1, 2, 3, 4]}}\n", "f:1: tenants.a.tags: has 4 entries; at most 3 are possible"},
        {"tenants:\n  a:\n    nice: 1\n    nice: 2\n", "f:4: tenants.a: 'nice' stands here twice; remove one"},
        {"tenants:\n  a:\n  b:\n  a:\n", "f:4: tenants: the name 'a' is taken by line 2"},
        {"tenants:\n- name: a\n- name: a\n", "f:3: tenants: the name 'a' is taken by line 2"},
        {"tenants:\n  a23456789012345678901234567890123:\n", "f:2: tenants.a23456789012345678901234567890123: a name has 1 to 32"},
        {"tenants:\n  a/b:\n", "f:2: tenants: 'a/b' is no name: letters, digits"},
        {"tenants:\n- name: .a\n", "f:2: tenants: '.a' is no name: letters, digits"},
        {"tenants:\n  ? \"a\\n\\e[2Jb\"\n  : 1\n", "f:2: tenants: 'a  [2Jb' is no name: letters, digits"},
        {"tenants:\n  a: {restart: [1]}\n", "f:2: tenants.a.restart: must be a single word, not a list"},
        {"tenants:\n  a: {disks: {d: {size: [1]}}}\n", "f:2: tenants.a.disks.d.size: must be a single value, not a list"},
        {"tenants:\n\ta:\n", "f:2: not YAML: found character that cannot start any token; the line is indented by a tab"},
        {"tenants:\n  a:\n    nice: 1\n   share: 2\n", "f:4: not YAML: did not find expected key; check the indentation"},
        {"tenants:\n  a: b: c\n", "f:2: not YAML: mapping values are not allowed in this context; check the indentation"},
        {"tenants: {a: {}\n", "f:2: not YAML: did not find expected ',' or '}'"},
        {"tenants: \"\\0\"\n", "f:1: tenants: must be a list"},
        {"tenants: {a: {restart: \"al\\0ways\"}}\n", "f:1: tenants.a.restart: must not contain a zero byte"},
        {"tenants: {a: }\n---\nb: 1\n", "f:3: a second document begins; put all in one, without '---'"},
        {"tenants: {\xff: }\n", "f:1: not YAML: invalid leading UTF-8 octet; save the file as UTF-8"},
        {"tenants: {a: *nobody}\n", "f:1: not YAML: found undefined alias"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct yaml_file *file;
        struct tv_error err = {0};
        const int rc = yaml_file_parse("f", cases[i].text, strlen(cases[i].text), &plan_schema, &file, &err);
        if (rc != -EINVAL || strncmp(err.text, cases[i].message, strlen(cases[i].message)) != 0)
            fail_msg("\n%s\nis told:   %s\nnot:       %s", cases[i].text, err.text, cases[i].message);
        assert_null(file);
    }
}

static void test_anchor(void **state)
{
    (void)state;
    const char text[] = "tenants:\n  a: &same {nice: 3}\n  b: *same\n";
    struct yaml_file *file;
    assert_int_equal(yaml_file_parse("f", text, sizeof(text) - 1, &plan_schema, &file, NULL), 0);
    assert_int_equal(((struct plan *)yaml_file_data(file))->tenants[1].nice, 3);
    yaml_file_destroy(file);
}

// Aliases multiply: each tenant has the same 4000 disks. A cycle ends where the schema does.
static void test_multiplied_aliases(void **state)
{
    (void)state;
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    fputs("tenants:\n  t0:\n    disks: &all\n", out);
    for (int i = 0; i < 4000; i++)
        fprintf(out, "      d%d: {size: 1}\n", i);
    for (int i = 1; i < 4000; i++)
        fprintf(out, "  t%d: {disks: *all}\n", i);
    fclose(out);
    struct yaml_file *file;
    struct tv_error err = {0};
    assert_int_equal(yaml_file_parse("f", text, len, &plan_schema, &file, &err), -EINVAL);
    assert_non_null(strstr(err.text, "more than 200000 values"));
    free(text);
    const char cycle[] = "tenants: &t\n  a: *t\n";
    assert_int_equal(yaml_file_parse("f", cycle, sizeof(cycle) - 1, &plan_schema, &file, &err), -EINVAL);
}

static void test_files(void **state)
{
    (void)state;
    struct yaml_file *file;
    struct tv_error err = {0};
    char path[] = "/tmp/test-yaml-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, good, sizeof(good) - 1), (ssize_t)sizeof(good) - 1);
    assert_int_equal(yaml_file_load(path, &plan_schema, &file, &err), 0);
    yaml_file_destroy(file);
    assert_int_equal(ftruncate(fd, 1 << 21), 0);
    assert_int_equal(yaml_file_load(path, &plan_schema, &file, &err), -EFBIG);
    assert_non_null(strstr(err.text, "is larger than 1 MiB"));
    close(fd);
    unlink(path);
    assert_int_equal(yaml_file_load(path, &plan_schema, &file, &err), -ENOENT);
    assert_non_null(strstr(err.text, "there is no such file"));
    assert_int_equal(yaml_file_load("/tmp", &plan_schema, &file, &err), -EISDIR);
    assert_string_equal(err.text, "/tmp: is a directory, not a YAML file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),   cmocka_unit_test(test_list_form),          cmocka_unit_test(test_faults),
        cmocka_unit_test(test_anchor), cmocka_unit_test(test_multiplied_aliases), cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
