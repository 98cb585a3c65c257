// YAML files by schema: see yaml_file.h. libyaml reads the document and keeps its lines, yaml_check.c checks it and writes it anew,
// libcyaml fills the struct from that.
#include "base/yaml_file.h"

#include "base/size.h"
#include "base/yaml_check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct yaml_file {
    char *name;
    const cyaml_schema_value_t *schema;
    yaml_document_t document; // has a root node
    void *data;
};

static const cyaml_config_t config = {.mem_fn = cyaml_mem, .log_level = CYAML_LOG_ERROR, .flags = CYAML_CFG_NO_ALIAS};

// ---- reading

static int read_all(int fd, const char *path, char *buf, size_t *len, struct tv_error *err)
{
    ssize_t n;
    *len = 0;
    while (*len <= YAML_FILE_BYTES_MAX && (n = read(fd, buf + *len, YAML_FILE_BYTES_MAX + 1 - *len)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return tv_error_set(err, -errno, "%s: %s", path, errno == EISDIR ? "is a directory, not a YAML file" : strerror(errno));
        *len += (size_t)n;
    }
    return 0;
}

int yaml_file_load(const char *path, const cyaml_schema_value_t *schema, struct yaml_file **file, struct tv_error *err)
{
    *file = NULL;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return tv_error_set(err, -errno, "%s: %s", path,
                            errno == ENOENT   ? "there is no such file"
                            : errno == EACCES ? "no permission to read it"
                                              : strerror(errno));
    size_t len = 0;
    char *buf = malloc(YAML_FILE_BYTES_MAX + 1);
    int rc = buf ? read_all(fd, path, buf, &len, err) : tv_error_set(err, -ENOMEM, "%s: out of memory", path);
    close(fd);
    if (!rc)
        rc = yaml_file_parse(path, buf, len, schema, file, err);
    free(buf);
    return rc;
}

// ---- syntax

static const char *remedy(const yaml_parser_t *parser, const char *text, size_t len, size_t line)
{
    size_t at = 0;
    for (; line && at < len; at++)
        line -= text[at] == '\n';
    while (at < len && text[at] == ' ')
        at++;
    if (at < len && text[at] == '\t')
        return "; the line is indented by a tab: use blanks";
    const char *problem = parser->problem ? parser->problem : "";
    if (strstr(problem, "mapping values are not allowed"))
        return "; check the indentation, and put text that contains ': ' in quotes";
    if (strstr(problem, "expected key") || strstr(problem, "expected '-'") || strstr(problem, "block end"))
        return "; check the indentation of this line and the one before";
    if (strstr(problem, "expected ':'"))
        return "; a key is followed by ': '";
    if (parser->error == YAML_READER_ERROR)
        return "; save the file as UTF-8";
    return "";
}

static int syntax_error(const char *name, const yaml_parser_t *parser, const char *text, size_t len, struct tv_error *err)
{
    if (parser->error == YAML_MEMORY_ERROR)
        return tv_error_set(err, -ENOMEM, "%s: out of memory", name);
    size_t line = parser->error == YAML_READER_ERROR ? parser->mark.line : parser->problem_mark.line;
    const char *hint = remedy(parser, text, len, line);
    return tv_error_set(err, -EINVAL, "%s:%zu: not YAML: %s%s", name, line + 1, parser->problem ? parser->problem : "unreadable",
                        hint);
}

// One document that has something in it. On success document is the caller's to delete.
static int read_document(const char *name, const char *text, size_t len, yaml_document_t *document, struct tv_error *err)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        return tv_error_set(err, -ENOMEM, "%s: out of memory", name);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
    int rc = 0;
    if (!yaml_parser_load(&parser, document)) {
        rc = syntax_error(name, &parser, text, len, err);
        yaml_parser_delete(&parser);
        return rc;
    }
    const yaml_node_t *root = yaml_document_get_root_node(document);
    yaml_document_t second;
    if (!root || yaml_is_null(root))
        rc = tv_error_set(err, -EINVAL, "%s: the file is empty", name);
    else if (!yaml_parser_load(&parser, &second))
        rc = syntax_error(name, &parser, text, len, err);
    else {
        const yaml_node_t *more = yaml_document_get_root_node(&second);
        if (more)
            rc = tv_error_set(err, -EINVAL, "%s:%zu: a second document begins; put all in one, without '---'", name,
                              more->start_mark.line + 1);
        yaml_document_delete(&second);
    }
    if (rc)
        yaml_document_delete(document);
    yaml_parser_delete(&parser);
    return rc;
}

// ---- loading

static int fill(struct yaml_file *file, struct tv_error *err)
{
    struct yaml_text text = {0};
    int rc = yaml_check(file->name, &file->document, file->schema, &text, err);
    if (!rc) {
        // What fails here has passed the check: the schema itself is wrong, or there is no memory.
        const cyaml_err_t got = cyaml_load_data((const uint8_t *)text.bytes, text.len, &config, file->schema, &file->data, NULL);
        if (got != CYAML_OK)
            rc = tv_error_set(err, got == CYAML_ERR_OOM ? -ENOMEM : -EINVAL, "%s: %s", file->name, cyaml_strerror(got));
    }
    free(text.bytes);
    return rc;
}

int yaml_file_parse(const char *name, const char *text, size_t len_bytes, const cyaml_schema_value_t *schema,
                    struct yaml_file **file, struct tv_error *err)
{
    *file = NULL;
    if (len_bytes > YAML_FILE_BYTES_MAX) {
        char most[SIZE_TEXT_MAX];
        return tv_error_set(err, -EFBIG, "%s: is larger than %s; is this the right file?", name,
                            size_format_about(YAML_FILE_BYTES_MAX, most));
    }
    struct yaml_file *f = calloc(1, sizeof(*f));
    if (!f || !(f->name = strdup(name))) {
        free(f);
        return tv_error_set(err, -ENOMEM, "%s: out of memory", name);
    }
    f->schema = schema;
    int rc = read_document(name, text, len_bytes, &f->document, err);
    if (rc) {
        free(f->name);
        free(f);
        return rc;
    }
    rc = fill(f, err);
    if (rc) {
        yaml_file_destroy(f);
        return rc;
    }
    *file = f;
    return 0;
}

void yaml_file_destroy(struct yaml_file *file)
{
    if (!file)
        return;
    if (file->data)
        cyaml_free(&config, file->schema, file->data, 0);
    yaml_document_delete(&file->document);
    free(file->name);
    free(file);
}

void *yaml_file_data(const struct yaml_file *file)
{
    return file->data;
}

// ---- lines

// libyaml's look-up does not change the document, but its signature does not say so.
static const yaml_node_t *node_at(const struct yaml_file *file, int index)
{
    return yaml_document_get_node((yaml_document_t *)(uintptr_t)&file->document, index);
}

static bool is_text(const yaml_node_t *node, const char *text, size_t len)
{
    return node->type == YAML_SCALAR_NODE && node->data.scalar.length == len && memcmp(node->data.scalar.value, text, len) == 0;
}

// The value of a key; *line is the key's.
static const yaml_node_t *child_of_mapping(const struct yaml_file *file, const yaml_node_t *node, const char *key, size_t len,
                                           size_t *line)
{
    for (const yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++) {
        const yaml_node_t *at = node_at(file, p->key);
        if (!is_text(at, key, len))
            continue;
        *line = at->start_mark.line;
        return node_at(file, p->value);
    }
    return NULL;
}

static const yaml_node_t *child_of_list(const struct yaml_file *file, const yaml_node_t *node, const char *key, size_t len,
                                        size_t *line)
{
    const yaml_node_item_t *items = node->data.sequence.items.start;
    const size_t n = (size_t)(node->data.sequence.items.top - items);
    size_t unused;
    for (size_t i = 0; i < n; i++) {
        const yaml_node_t *entry = node_at(file, items[i]);
        char index[24];
        const size_t index_len = (size_t)snprintf(index, sizeof(index), "%zu", i);
        const yaml_node_t *name = entry->type == YAML_MAPPING_NODE ? child_of_mapping(file, entry, "name", 4, &unused) : NULL;
        if ((index_len != len || memcmp(index, key, len) != 0) && !(name && is_text(name, key, len)))
            continue;
        *line = entry->start_mark.line;
        return entry;
    }
    return NULL;
}

unsigned yaml_file_line(const struct yaml_file *file, const char *path)
{
    const yaml_node_t *node = node_at(file, 1); // the root
    size_t line = node->start_mark.line;
    while (*path && node) {
        const size_t len = strcspn(path, "/");
        if (node->type == YAML_MAPPING_NODE)
            node = child_of_mapping(file, node, path, len, &line);
        else if (node->type == YAML_SEQUENCE_NODE)
            node = child_of_list(file, node, path, len, &line);
        else
            node = NULL;
        path += len;
        path += *path == '/';
    }
    return (unsigned)line + 1;
}

int yaml_file_error(const struct yaml_file *file, const char *path, struct tv_error *err, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return tv_error_set(err, -EINVAL, "%s:%u: %s", file->name, yaml_file_line(file, path), text);
}
