// Checks a YAML document against a schema: see yaml_check.h.
//
// The walk follows the schema, so its depth is the schema's whatever the file says; aliases are followed, and the number of values
// is limited because aliases can multiply them.
#include "base/yaml_check.h"

#include "base/yaml_file.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VALUES_MAX = 200000, PLACE_BYTES = 200, KEYS_BYTES = 220 };

// place is the path of the value that is looked at, for messages.
struct walk {
    const char *file;
    yaml_document_t *document;
    struct yaml_text *out;
    struct tv_error *err;
    char place[PLACE_BYTES];
    unsigned values;
};

static int check_value(struct walk *w, const cyaml_schema_value_t *schema, yaml_node_t *node);

static int fault(struct walk *w, const yaml_node_t *node, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int fault(struct walk *w, const yaml_node_t *node, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return tv_error_set(w->err, -EINVAL, "%s:%zu: %s%s%s", w->file, node->start_mark.line + 1, w->place, w->place[0] ? ": " : "",
                        text);
}

// Appends to the place; returns the length to go back to.
static size_t enter(struct walk *w, const char *key)
{
    const size_t before = strlen(w->place);
    snprintf(w->place + before, sizeof(w->place) - before, "%s%.60s", before ? "." : "", key);
    return before;
}

// ---- writing

static int put(struct walk *w, const char *bytes, size_t len)
{
    struct yaml_text *t = w->out;
    if (t->capacity - t->len < len) {
        const size_t capacity = (t->capacity + len) * 2;
        char *bigger = realloc(t->bytes, capacity);
        if (!bigger)
            return tv_error_set(w->err, -ENOMEM, "%s: out of memory", w->file);
        t->bytes = bigger;
        t->capacity = capacity;
    }
    memcpy(t->bytes + t->len, bytes, len);
    t->len += len;
    return 0;
}

// One character of text that libyaml has found to be UTF-8.
static uint32_t take_character(const char **text)
{
    const unsigned char *c = (const unsigned char *)*text;
    const unsigned more = *c < 0x80 ? 0 : *c < 0xe0 ? 1 : *c < 0xf0 ? 2 : 3;
    uint32_t value = more ? *c & (0x3fu >> more) : *c;
    for (unsigned i = 1; i <= more; i++)
        value = value << 6 | (c[i] & 0x3fu);
    *text += more + 1;
    return value;
}

// Beyond ASCII all is escaped: among it are ends of lines and characters that YAML takes escaped only.
static int put_string(struct walk *w, const char *text)
{
    int rc = put(w, "\"", 1);
    while (*text && !rc) {
        char escaped[12];
        const uint32_t c = take_character(&text);
        if (c < ' ' || c >= 0x7f)
            snprintf(escaped, sizeof(escaped), "\\U%08x", c);
        else
            snprintf(escaped, sizeof(escaped), c == '"' || c == '\\' ? "\\%c" : "%c", (char)c);
        rc = put(w, escaped, strlen(escaped));
    }
    return rc ? rc : put(w, "\"", 1);
}

// ---- what a node is

bool yaml_is_null(const yaml_node_t *node)
{
    if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    const char *text = (const char *)node->data.scalar.value;
    return !*text || strcmp(text, "~") == 0 || strcasecmp(text, "null") == 0;
}

static const char *kind_of(const yaml_node_t *node)
{
    if (node->type == YAML_MAPPING_NODE)
        return "a mapping ('key: value' lines)";
    return node->type == YAML_SEQUENCE_NODE ? "a list ('- ' lines)" : "a single value";
}

// The scalar's text, or NULL with the fault told.
static const char *text_of(struct walk *w, const yaml_node_t *node, const char *wanted)
{
    if (node->type != YAML_SCALAR_NODE) {
        fault(w, node, "must be %s, not %s", wanted, kind_of(node));
        return NULL;
    }
    const char *text = (const char *)node->data.scalar.value;
    if (strlen(text) != node->data.scalar.length) {
        fault(w, node, "must not contain a zero byte");
        return NULL;
    }
    return text;
}

// ---- scalars

static bool has_leading_zero(const char *digits)
{
    return digits[0] == '0' && isdigit((unsigned char)digits[1]); // would be read as octal
}

static int check_int(struct walk *w, const cyaml_schema_value_t *schema, const yaml_node_t *node)
{
    const char *text = text_of(w, node, "a whole number");
    if (!text)
        return -EINVAL;
    const unsigned bits = 8 * schema->data_size;
    const bool is_signed = schema->type == CYAML_INT, negative = text[0] == '-';
    const char *digits = text + negative;
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(digits, &end, 0);
    if (!isdigit((unsigned char)*digits) || *end || has_leading_zero(digits) || (negative && !is_signed))
        return fault(w, node, "'%.40s' is not a whole number%s", text, is_signed ? "" : " of 0 or more");
    const unsigned long long max = is_signed ? (1ull << (bits - 1)) - (negative ? 0 : 1) : UINT64_MAX >> (64 - bits);
    if (errno == ERANGE || value > max)
        return fault(w, node, "'%.40s' is out of range; at %s %s%llu is possible", text, negative ? "least" : "most",
                     negative ? "-" : "", max);
    return put_string(w, text);
}

static int check_bool(struct walk *w, const yaml_node_t *node)
{
    static const char *const words[] = {"false", "no", "off", "true", "yes", "on"};
    const char *text = text_of(w, node, "true or false");
    if (!text)
        return -EINVAL;
    for (unsigned i = 0; i < 6; i++)
        if (strcasecmp(text, words[i]) == 0)
            return put_string(w, i < 3 ? "false" : "true");
    return fault(w, node, "must be true or false, not '%.40s'", text);
}

static int check_float(struct walk *w, const yaml_node_t *node)
{
    const char *text = text_of(w, node, "a number");
    if (!text)
        return -EINVAL;
    char *end;
    strtod(text, &end);
    if (!*text || *end || isspace((unsigned char)*text))
        return fault(w, node, "'%.40s' is not a number", text);
    return put_string(w, text);
}

static int check_string(struct walk *w, const cyaml_schema_value_t *schema, const yaml_node_t *node)
{
    const char *text = text_of(w, node, "a single value");
    if (!text)
        return -EINVAL;
    const size_t len = strlen(text);
    if (len < schema->string.min)
        return fault(w, node, "has %zu characters; at least %u are needed", len, schema->string.min);
    if (len > schema->string.max)
        return fault(w, node, "has %zu characters; at most %u are possible", len, schema->string.max);
    return put_string(w, text);
}

// Adds a word to a list of them, as far as there is room.
static void list_word(char *list, size_t size, const char *word)
{
    const size_t used = strlen(list);
    snprintf(list + used, size - used, "%s%s", used ? ", " : "", word);
}

static int check_enum(struct walk *w, const cyaml_schema_value_t *schema, const yaml_node_t *node)
{
    char known[KEYS_BYTES] = "";
    const char *text = text_of(w, node, "a single word");
    if (!text)
        return -EINVAL;
    for (uint32_t i = 0; i < schema->enumeration.count; i++) {
        if (strcmp(text, schema->enumeration.strings[i].str) == 0)
            return put_string(w, text);
        list_word(known, sizeof(known), schema->enumeration.strings[i].str);
    }
    return fault(w, node, "'%.40s' is none of: %s", text, known);
}

// ---- mappings

static const cyaml_schema_field_t *field_by_key(const cyaml_schema_field_t *fields, const char *key)
{
    for (; fields->key; fields++)
        if (strcmp(fields->key, key) == 0)
            return fields;
    return NULL;
}

static int unknown_key(struct walk *w, const cyaml_schema_field_t *fields, const yaml_node_t *node, const char *key, bool named)
{
    char known[KEYS_BYTES] = "";
    for (const cyaml_schema_field_t *f = fields + named; f->key; f++)
        list_word(known, sizeof(known), f->key);
    return fault(w, node, "unknown key '%.40s'; known here: %s", key, known);
}

// Writes the pairs of one mapping. `named`: the name has been written, and the file must not give another.
static int check_pairs(struct walk *w, const cyaml_schema_field_t *fields, yaml_node_t *node, bool named, uint64_t *seen,
                       bool *first)
{
    for (yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++) {
        yaml_node_t *key_node = yaml_document_get_node(w->document, p->key);
        yaml_node_t *value = yaml_document_get_node(w->document, p->value);
        const char *key = text_of(w, key_node, "a key");
        if (!key)
            return -EINVAL;
        const cyaml_schema_field_t *field = field_by_key(fields, key);
        if (!field || (named && field == fields))
            return unknown_key(w, fields, key_node, key, named);
        const uint64_t bit = 1ull << (field - fields);
        if (*seen & bit)
            return fault(w, key_node, "'%.40s' stands here twice; remove one", key);
        *seen |= bit;
        const size_t before = enter(w, key);
        int rc = 0;
        if (yaml_is_null(value)) {
            if (!(field->value.flags & CYAML_FLAG_OPTIONAL))
                rc = fault(w, key_node, "has no value");
        } else {
            rc = *first ? 0 : put(w, ",", 1);
            rc = rc ? rc : put_string(w, key);
            rc = rc ? rc : put(w, ": ", 2);
            rc = rc ? rc : check_value(w, &field->value, value);
            *first = false;
        }
        if (rc)
            return rc;
        w->place[before] = 0;
    }
    return 0;
}

static int check_missing(struct walk *w, const cyaml_schema_field_t *fields, const yaml_node_t *node, uint64_t seen)
{
    for (const cyaml_schema_field_t *f = fields; f->key; f++)
        if (!(seen & (1ull << (f - fields))) && !(f->value.flags & CYAML_FLAG_OPTIONAL))
            return fault(w, node, "'%s' is missing", f->key);
    return 0;
}

// name: what the mapping's own key is, when that is its first field; else NULL. A null node is an empty mapping.
static int check_mapping(struct walk *w, const cyaml_schema_field_t *fields, yaml_node_t *node, const char *name)
{
    uint64_t seen = 0; // a bit for each field
    bool first = true;
    if (node->type != YAML_MAPPING_NODE && !yaml_is_null(node))
        return fault(w, node, "must be a mapping ('key: value' lines), not %s", kind_of(node));
    int rc = put(w, "{", 1);
    if (name && !rc) {
        rc = put(w, "\"name\": ", 8);
        rc = rc ? rc : put_string(w, name);
        seen = 1;
        first = false;
    }
    if (!rc && node->type == YAML_MAPPING_NODE)
        rc = check_pairs(w, fields, node, name != NULL, &seen, &first);
    rc = rc ? rc : check_missing(w, fields, node, seen);
    return rc ? rc : put(w, "}", 1);
}

// ---- lists

const cyaml_schema_field_t *yaml_named_fields(const cyaml_schema_value_t *list)
{
    if (list->type != CYAML_SEQUENCE || list->sequence.entry->type != CYAML_MAPPING)
        return NULL;
    const cyaml_schema_field_t *fields = list->sequence.entry->mapping.fields;
    return fields->key && strcmp(fields->key, "name") == 0 && fields->value.type == CYAML_STRING ? fields : NULL;
}

static int check_count(struct walk *w, const cyaml_schema_value_t *schema, const yaml_node_t *node, size_t n)
{
    const uint32_t max = schema->sequence.max < YAML_LIST_MAX ? schema->sequence.max : YAML_LIST_MAX;
    if (n > max)
        return fault(w, node, "has %zu entries; at most %u are possible", n, max);
    if (n < schema->sequence.min)
        return fault(w, node, "has %zu entries; at least %u are needed", n, schema->sequence.min);
    return 0;
}

// The name of entry i, whether the file has a list or a mapping; NULL if it is none.
static const yaml_node_t *entry_name(struct walk *w, yaml_node_t *node, size_t i)
{
    if (node->type == YAML_MAPPING_NODE)
        return yaml_document_get_node(w->document, node->data.mapping.pairs.start[i].key);
    yaml_node_t *entry = yaml_document_get_node(w->document, node->data.sequence.items.start[i]);
    if (entry->type != YAML_MAPPING_NODE)
        return NULL;
    for (yaml_node_pair_t *p = entry->data.mapping.pairs.start; p < entry->data.mapping.pairs.top; p++) {
        const yaml_node_t *key = yaml_document_get_node(w->document, p->key);
        if (key->type == YAML_SCALAR_NODE && strcmp((const char *)key->data.scalar.value, "name") == 0)
            return yaml_document_get_node(w->document, p->value);
    }
    return NULL;
}

struct name {
    const char *text;
    const yaml_node_t *node;
};

static int by_text(const void *a, const void *b)
{
    const struct name *x = a, *y = b;
    const int order = strcmp(x->text, y->text);
    return order ? order
                 : (x->node->start_mark.line > y->node->start_mark.line) - (x->node->start_mark.line < y->node->start_mark.line);
}

// They may become names of files, and places in messages.
static bool is_good_name(const char *name)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    return strspn(name, letters) == strlen(name) && !strchr("-_.", name[0]);
}

static int check_names(struct walk *w, yaml_node_t *node, size_t n_entries)
{
    struct name *names = calloc(n_entries + 1, sizeof(*names));
    size_t n = 0;
    if (!names)
        return tv_error_set(w->err, -ENOMEM, "%s: out of memory", w->file);
    int rc = 0;
    for (size_t i = 0; i < n_entries; i++) {
        const yaml_node_t *name = entry_name(w, node, i);
        if (name && name->type == YAML_SCALAR_NODE)
            names[n++] = (struct name){(const char *)name->data.scalar.value, name};
    }
    for (size_t i = 0; i < n && !rc; i++)
        if (!is_good_name(names[i].text))
            rc = fault(w, names[i].node, "'%.40s' is no name: letters, digits, '-', '_' and '.', first a letter or digit",
                       names[i].text);
    if (n && !rc)
        qsort(names, n, sizeof(*names), by_text);
    for (size_t i = 1; i < n && !rc; i++)
        if (strcmp(names[i - 1].text, names[i].text) == 0)
            rc = fault(w, names[i].node, "the name '%.40s' is taken by line %zu", names[i].text,
                       names[i - 1].node->start_mark.line + 1);
    free(names);
    return rc;
}

static int check_entry(struct walk *w, const cyaml_schema_value_t *schema, yaml_node_t *node, size_t i)
{
    if (node->type == YAML_SEQUENCE_NODE) {
        char index[24];
        snprintf(index, sizeof(index), "%zu", i);
        const size_t before = enter(w, index);
        const int rc =
            check_value(w, schema->sequence.entry, yaml_document_get_node(w->document, node->data.sequence.items.start[i]));
        if (!rc)
            w->place[before] = 0;
        return rc;
    }
    const yaml_node_pair_t *p = &node->data.mapping.pairs.start[i];
    const char *name = text_of(w, yaml_document_get_node(w->document, p->key), "a name");
    if (!name)
        return -EINVAL;
    const cyaml_schema_field_t *fields = schema->sequence.entry->mapping.fields;
    const size_t before = enter(w, name);
    if (strlen(name) < fields->value.string.min || strlen(name) > fields->value.string.max)
        return fault(w, yaml_document_get_node(w->document, p->key), "a name has %u to %u characters", fields->value.string.min,
                     fields->value.string.max);
    const int rc = check_mapping(w, fields, yaml_document_get_node(w->document, p->value), name);
    if (!rc)
        w->place[before] = 0;
    return rc;
}

static int check_list(struct walk *w, const cyaml_schema_value_t *schema, yaml_node_t *node)
{
    const bool named = yaml_named_fields(schema) != NULL;
    size_t n;
    if (node->type == YAML_SEQUENCE_NODE)
        n = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    else if (named && node->type == YAML_MAPPING_NODE)
        n = (size_t)(node->data.mapping.pairs.top - node->data.mapping.pairs.start);
    else
        return fault(w, node, "must be a list ('- ' lines)%s, not %s", named ? " or a mapping of names" : "", kind_of(node));
    int rc = check_count(w, schema, node, n);
    if (!rc && named)
        rc = check_names(w, node, n);
    rc = rc ? rc : put(w, "[", 1);
    for (size_t i = 0; i < n && !rc; i++) {
        rc = i ? put(w, ",", 1) : 0;
        rc = rc ? rc : check_entry(w, schema, node, i);
    }
    return rc ? rc : put(w, "]", 1);
}

static int check_value(struct walk *w, const cyaml_schema_value_t *schema, yaml_node_t *node)
{
    if (++w->values > VALUES_MAX)
        return fault(w, node, "the file has more than %d values", VALUES_MAX);
    switch (schema->type) {
    case CYAML_INT:
    case CYAML_UINT:
        return check_int(w, schema, node);
    case CYAML_BOOL:
        return check_bool(w, node);
    case CYAML_ENUM:
        return check_enum(w, schema, node);
    case CYAML_FLOAT:
        return check_float(w, node);
    case CYAML_STRING:
        return check_string(w, schema, node);
    case CYAML_MAPPING:
        return check_mapping(w, schema->mapping.fields, node, NULL);
    case CYAML_SEQUENCE:
    case CYAML_SEQUENCE_FIXED:
        return check_list(w, schema, node);
    case CYAML_IGNORE:
        return put(w, "\"\"", 2);
    default:
        return tv_error_set(w->err, -ENOTSUP, "%s: %s: the schema has a kind of value that is not supported", w->file, w->place);
    }
}

int yaml_check(const char *file, yaml_document_t *document, const cyaml_schema_value_t *schema, struct yaml_text *out,
               struct tv_error *err)
{
    struct walk w = {.file = file, .document = document, .out = out, .err = err};
    const int rc = check_value(&w, schema, yaml_document_get_root_node(document));
    return rc ? rc : put(&w, "\n", 1);
}
