// The file of `trivet up`: see up_file.h.
#include "control/up_file.h"

#include "control/cleanup.h"
#include "control/image.h"
#include "control/paths.h"
#include "control/spec.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

struct reader {
    const char *path;
    char dir[PATH_MAX]; // relative paths begin here
    yaml_document_t doc;
    struct up_file *file;
    json_t *disks; // name -> {"line", "user", spec members}
    struct tv_error *err;
};

static int fail(const struct reader *r, const yaml_node_t *at, const char *format, ...) __attribute__((format(printf, 3, 4)));

static int fail(const struct reader *r, const yaml_node_t *at, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return tv_error_set(r->err, -EINVAL, "%s:%zu: %s", r->path, at->start_mark.line + 1, text);
}

// --- walking

static yaml_node_t *node(struct reader *r, int index)
{
    return yaml_document_get_node(&r->doc, index);
}

static const char *scalar(const yaml_node_t *n)
{
    return n->type == YAML_SCALAR_NODE ? (const char *)n->data.scalar.value : NULL;
}

// "key:" with nothing behind it.
static bool is_empty(const yaml_node_t *n)
{
    const char *text = scalar(n);
    return text && !text[0] && n->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

struct member {
    const char *key;
    int (*read)(struct reader *r, json_t *out, const char *key, const yaml_node_t *value);
    const char *as; // the member's name in the JSON; NULL: the same
};

static const struct member *find_member(const struct member *members, const char *key)
{
    for (; members->key; members++)
        if (strcmp(members->key, key) == 0)
            return members;
    return NULL;
}

static int unknown_key(struct reader *r, const yaml_node_t *at, const char *what, const char *key, const struct member *members)
{
    char known[256] = "";
    for (size_t used = 0; members->key && used < sizeof(known) - 1; members++)
        used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s", used ? ", " : "", members->key);
    return fail(r, at, "%s: '%s' is not known here; there are: %s", what, key, known);
}

// Reads a mapping by a table of its members.
static int read_members(struct reader *r, const yaml_node_t *map, const char *what, const struct member *members, json_t *out)
{
    if (is_empty(map))
        return 0;
    if (map->type != YAML_MAPPING_NODE)
        return fail(r, map, "%s should be a mapping (KEY: VALUE)", what);
    for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
        const yaml_node_t *key = node(r, p->key);
        const char *name = scalar(key);
        const struct member *member = name ? find_member(members, name) : NULL;
        if (!member)
            return unknown_key(r, key, what, name ? name : "?", members);
        const char *as = member->as ? member->as : member->key;
        if (json_object_get(out, as))
            return fail(r, key, "%s: '%s' stands twice", what, name);
        int rc = member->read(r, out, as, node(r, p->value));
        if (rc)
            return rc;
    }
    return 0;
}

// Calls fn for each "NAME: ..." of a mapping whose keys are names.
static int each_named(struct reader *r, const yaml_node_t *map, const char *what,
                      int (*fn)(struct reader *r, const char *name, const yaml_node_t *key, const yaml_node_t *value))
{
    if (is_empty(map))
        return 0;
    if (map->type != YAML_MAPPING_NODE)
        return fail(r, map, "%s should be a mapping (NAME: ...)", what);
    for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
        const yaml_node_t *key = node(r, p->key);
        const char *name = scalar(key);
        if (!name || !spec_name_is_good(name))
            return fail(r, key, "%s: '%s' is no name: letters, digits, '-', '_' and '.', at most %d", what, name ? name : "?",
                        SPEC_NAME_MAX);
        int rc = fn(r, name, key, node(r, p->value));
        if (rc)
            return rc;
    }
    return 0;
}

// --- values

static int read_text(struct reader *r, json_t *out, const char *key, const yaml_node_t *value)
{
    const char *text = scalar(value);
    if (!text || !text[0])
        return fail(r, value, "'%s' should be a word", key);
    return json_object_set_new(out, key, json_string(text)) ? fail(r, value, "'%s' is no UTF-8 text", key) : 0;
}

static int read_path(struct reader *r, json_t *out, const char *key, const yaml_node_t *value)
{
    char full[PATH_MAX];
    const char *text = scalar(value);
    if (!text || !text[0])
        return fail(r, value, "'%s' should be a path", key);
    if (path_format(full, NULL, "%s%s%s", text[0] == '/' ? "" : r->dir, text[0] == '/' ? "" : "/", text))
        return fail(r, value, "'%s': the path is too long", key);
    return json_object_set_new(out, key, json_string(full)) ? fail(r, value, "'%s' is no UTF-8 text", key) : 0;
}

static int read_size(struct reader *r, json_t *out, const char *key, const yaml_node_t *value)
{
    uint64_t bytes;
    struct tv_error why = {0};
    const char *text = scalar(value);
    if (spec_parse_size(text ? text : "", strcmp(key, "memory_bytes") == 0 ? "memory" : "size", &bytes, &why))
        return fail(r, value, "%s", why.text);
    return json_object_set_new(out, key, json_integer((json_int_t)bytes));
}

static int read_number(struct reader *r, json_t *out, const char *key, const yaml_node_t *value)
{
    const char *text = scalar(value);
    char *end = NULL;
    long n = text && text[0] ? strtol(text, &end, 10) : 0;
    if (!end || *end || n < 0 || n > 1000000)
        return fail(r, value, "'%s' should be a number, not '%s'", key, text ? text : "?");
    return json_object_set_new(out, key, json_integer(n));
}

static int read_bool(struct reader *r, json_t *out, const char *key, const yaml_node_t *value)
{
    const char *text = scalar(value);
    if (!text || (strcmp(text, "true") != 0 && strcmp(text, "false") != 0))
        return fail(r, value, "'%s' should be true or false, not '%s'", key, text ? text : "?");
    return json_object_set_new(out, key, json_boolean(text[0] == 't'));
}

// from: image NAME
static int read_from(struct reader *r, json_t *out, const char *key, const yaml_node_t *value)
{
    const char *text = scalar(value);
    if (!text || strncmp(text, "image ", 6) != 0)
        return fail(r, value, "'from' should be 'image NAME', not '%s'", text ? text : "?");
    if (strcmp(text + 6, IMAGE_DEFAULT_NAME) != 0)
        return fail(r, value, "image '%s' is not known; there is '%s'", text + 6, IMAGE_DEFAULT_NAME);
    return json_object_set_new(out, key, json_string(text + 6));
}

// --- disks

static const struct member disk_members[] = {
    {"path", read_path, NULL},      {"size", read_size, "size_bytes"}, {"from", read_from, "image"}, {"serial", read_text, NULL},
    {"read_only", read_bool, NULL}, {"queues", read_number, NULL},     {NULL, NULL, NULL},
};

// Without a path it lies in the state directory.
static int default_path(struct reader *r, const char *name, const yaml_node_t *at, json_t *disk)
{
    char state[PATH_MAX], path[PATH_MAX];
    if (json_object_get(disk, "path"))
        return 0;
    if (!json_object_get(disk, "size_bytes") && !json_object_get(disk, "image"))
        return fail(r, at, "disk '%s': give a path, a size or 'from: image NAME'", name);
    if (path_state_dir(state, r->err) || path_format(path, r->err, "%s/disks/%s.raw", state, name))
        return r->err->code;
    return json_object_set_new(disk, "path", json_string(path));
}

static int read_disk(struct reader *r, const char *name, const yaml_node_t *key, const yaml_node_t *value)
{
    char what[80];
    snprintf(what, sizeof(what), "disk '%s'", name);
    if (json_object_get(r->disks, name))
        return fail(r, key, "%s stands twice", what);
    json_t *disk = json_pack("{s:s}", "name", name);
    json_object_set_new(r->disks, name, disk);
    int rc = read_members(r, value, what, disk_members, disk);
    if (!rc)
        rc = default_path(r, name, key, disk);
    const char *other;
    json_t *earlier;
    json_object_foreach(r->disks, other, earlier)
    {
        if (!rc && earlier != disk && json_equal(json_object_get(earlier, "path"), json_object_get(disk, "path")))
            rc = fail(r, key, "%s has the same path as disk '%s'", what, other);
    }
    return rc;
}

static int read_disks(struct reader *r, json_t *out, const char *key, const yaml_node_t *value)
{
    json_object_set_new(out, key, json_true());
    return each_named(r, value, "disks", read_disk);
}

// A machine's list of names of disks. A disk belongs to one machine, unless it is only read.
static int read_machine_disks(struct reader *r, json_t *out, const char *key, const yaml_node_t *value)
{
    json_t *list = json_array();
    json_object_set_new(out, key, list);
    if (value->type != YAML_SEQUENCE_NODE)
        return fail(r, value, "'disks' should be a list of names, such as [root, data]");
    for (yaml_node_item_t *i = value->data.sequence.items.start; i < value->data.sequence.items.top; i++) {
        const yaml_node_t *item = node(r, *i);
        const char *name = scalar(item);
        json_t *disk = json_object_get(r->disks, name ? name : "");
        if (!disk)
            return fail(r, item, "there is no disk '%s' under 'disks'", name ? name : "?");
        const char *user = json_string_value(json_object_get(disk, "user"));
        if (user && !json_is_true(json_object_get(disk, "read_only")))
            return fail(r, item, "disk '%s' is machine '%s''s already; only a read_only one can be shared", name, user);
        json_array_append_new(list, json_deep_copy(disk));
        json_object_set_new(disk, "user", json_string(json_string_value(json_object_get(out, "name"))));
    }
    return 0;
}

// --- tenants and networks

static bool is_listed(const json_t *list, const char *name)
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        const char *has = json_is_string(item) ? json_string_value(item) : json_string_value(json_object_get(item, "name"));
        if (has && strcmp(has, name) == 0)
            return true;
    }
    return false;
}

static int read_tenant(struct reader *r, const char *name, const yaml_node_t *key, const yaml_node_t *value)
{
    static const struct member none[] = {{"description", read_text, NULL}, {NULL, NULL, NULL}};
    cleanup_json json_t *ignored = json_object();
    if (is_listed(r->file->tenants, name))
        return fail(r, key, "tenant '%s' stands twice", name);
    json_array_append_new(r->file->tenants, json_string(name));
    return read_members(r, value, "tenant", none, ignored);
}

static int read_tenants(struct reader *r, json_t *out, const char *key, const yaml_node_t *value)
{
    json_object_set_new(out, key, json_true());
    return each_named(r, value, "tenants", read_tenant);
}

static int read_known_tenant(struct reader *r, json_t *out, const char *key, const yaml_node_t *value)
{
    const char *name = scalar(value);
    if (!name || !is_listed(r->file->tenants, name))
        return fail(r, value, "there is no tenant '%s' under 'tenants'", name ? name : "?");
    return json_object_set_new(out, key, json_string(name));
}

static int read_network(struct reader *r, const char *name, const yaml_node_t *key, const yaml_node_t *value)
{
    static const struct member members[] = {
        {"tenant", read_known_tenant, NULL}, {"description", read_text, NULL}, {NULL, NULL, NULL}};
    if (is_listed(r->file->networks, name))
        return fail(r, key, "network '%s' stands twice", name);
    json_t *network = json_pack("{s:s}", "name", name);
    json_array_append_new(r->file->networks, network);
    return read_members(r, value, "network", members, network);
}

static int read_networks(struct reader *r, json_t *out, const char *key, const yaml_node_t *value)
{
    json_object_set_new(out, key, json_true());
    return each_named(r, value, "networks", read_network);
}

static int refuse_networks(struct reader *r, json_t *out, const char *key, const yaml_node_t *value)
{
    if (value->type == YAML_SEQUENCE_NODE && value->data.sequence.items.start == value->data.sequence.items.top)
        return 0;
    return fail(r, value, "machine '%s' asks for a network, and this version of trivet has no router yet; leave '%s' out",
                json_string_value(json_object_get(out, "name")), key);
}

// --- machines

static const struct member machine_members[] = {
    {"tenant", read_known_tenant, NULL},
    {"image", read_text, NULL},
    {"kernel", read_path, NULL},
    {"initrd", read_path, NULL},
    {"append", read_text, NULL},
    {"engine", read_text, NULL},
    {"memory", read_size, "memory_bytes"},
    {"cpus", read_number, NULL},
    {"restart", read_text, NULL},
    {"on_reboot", read_text, NULL},
    {"disks", read_machine_disks, NULL},
    {"networks", refuse_networks, NULL},
    {NULL, NULL, NULL},
};

static int read_machine(struct reader *r, const char *name, const yaml_node_t *key, const yaml_node_t *value)
{
    char what[80];
    snprintf(what, sizeof(what), "machine '%s'", name);
    if (is_listed(r->file->machines, name))
        return fail(r, key, "%s stands twice", what);
    json_t *machine = json_pack("{s:s}", "name", name);
    json_array_append_new(r->file->machines, machine);
    int rc = read_members(r, value, what, machine_members, machine);
    if (rc)
        return rc;
    const char *image = json_string_value(json_object_get(machine, "image"));
    if (image && strcmp(image, IMAGE_DEFAULT_NAME) != 0)
        return fail(r, key, "%s: image '%s' is not known; there is '%s'", what, image, IMAGE_DEFAULT_NAME);
    struct machine_spec spec;
    struct tv_error why = {0};
    if (spec_decode(machine, &spec, &why))
        return fail(r, key, "%s", why.text);
    spec_free(&spec);
    return 0;
}

static int read_machines(struct reader *r, json_t *out, const char *key, const yaml_node_t *value)
{
    json_object_set_new(out, key, json_true());
    return each_named(r, value, "machines", read_machine);
}

// --- the whole

// What refers to others comes after them, wherever it stands in the file.
static int read_sections(struct reader *r, const yaml_node_t *root)
{
    static const struct member sections[] = {
        {"tenants", read_tenants, NULL},
        {"networks", read_networks, NULL},
        {"disks", read_disks, NULL},
        {"machines", read_machines, NULL},
        {NULL, NULL, NULL},
    };
    cleanup_json json_t *seen = json_object();
    if (root->type != YAML_MAPPING_NODE)
        return fail(r, root, "the file should be a mapping with 'machines' in it");
    for (yaml_node_pair_t *p = root->data.mapping.pairs.start; p < root->data.mapping.pairs.top; p++) {
        const char *key = scalar(node(r, p->key));
        if (!key || !find_member(sections, key))
            return unknown_key(r, node(r, p->key), "top level", key ? key : "?", sections);
    }
    for (const struct member *s = sections; s->key; s++)
        for (yaml_node_pair_t *p = root->data.mapping.pairs.start; p < root->data.mapping.pairs.top; p++) {
            if (strcmp(scalar(node(r, p->key)), s->key) != 0)
                continue;
            if (json_object_get(seen, s->key))
                return fail(r, node(r, p->key), "'%s' stands twice", s->key);
            int rc = s->read(r, seen, s->key, node(r, p->value));
            if (rc)
                return rc;
        }
    if (json_array_size(r->file->machines) == 0)
        return fail(r, root, "there are no machines in it");
    return 0;
}

static int load_document(struct reader *r, FILE *f)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        return tv_error_set(r->err, -ENOMEM, "no memory");
    yaml_parser_set_input_file(&parser, f);
    int rc = 0;
    if (!yaml_parser_load(&parser, &r->doc)) {
        const yaml_mark_t *mark = parser.problem_mark.line ? &parser.problem_mark : &parser.context_mark;
        rc = tv_error_set(r->err, -EINVAL, "%s:%zu: this is no YAML: %s", r->path, mark->line + 1,
                          parser.problem ? parser.problem : "cannot be read");
    }
    yaml_parser_delete(&parser);
    if (rc)
        return rc;
    yaml_node_t *root = yaml_document_get_root_node(&r->doc);
    rc = root ? read_sections(r, root) : tv_error_set(r->err, -EINVAL, "%s:1: the file is empty", r->path);
    yaml_document_delete(&r->doc);
    return rc;
}

static int folder_of(const char *path, char dir[static PATH_MAX], struct tv_error *err)
{
    char real[PATH_MAX];
    if (!realpath(path, real))
        return tv_error_set(err, -errno, "%s: %s", path, strerror(errno));
    char *slash = strrchr(real, '/');
    slash[slash == real] = 0;
    return path_format(dir, err, "%s", real);
}

int up_file_load(const char *path, struct up_file *file, struct tv_error *err)
{
    struct tv_error none = {0};
    *file = (struct up_file){0};
    struct reader r = {.path = path, .file = file, .err = err ? err : &none};
    cleanup_fclose FILE *f = fopen(path, "re");
    if (!f)
        return tv_error_set(err, -errno, "%s: %s", path,
                            errno == ENOENT   ? "there is no such file"
                            : errno == EACCES ? "no permission to read it"
                                              : strerror(errno));
    int rc = folder_of(path, r.dir, r.err);
    if (rc)
        return rc;
    file->tenants = json_array();
    file->networks = json_array();
    file->machines = json_array();
    r.disks = json_object();
    rc = load_document(&r, f);
    json_decref(r.disks);
    if (rc)
        up_file_free(file);
    return rc;
}

void up_file_free(struct up_file *file)
{
    json_decref(file->tenants);
    json_decref(file->networks);
    json_decref(file->machines);
    *file = (struct up_file){0};
}
