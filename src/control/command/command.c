// Options and messages of the subcommands: see command.h.
#include "control/command/command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct command *command_find(const char *name)
{
    for (const struct command *c = commands; c->name; c++)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

// Does `word` name the option? *value is what stands after "=", if anything.
static bool is_option(const struct option_spec *option, const char *word, const char **value)
{
    const char *names = option->name;
    *value = NULL;
    while (*names) {
        size_t len = strcspn(names, "|");
        if (strncmp(word, names, len) == 0 && (word[len] == 0 || (word[len] == '=' && option->value))) {
            if (word[len] == '=')
                *value = word + len + 1;
            return true;
        }
        names += len + (names[len] == '|');
    }
    return false;
}

static const struct option_spec *find_option(const struct option_spec *options, const char *word, const char **value)
{
    for (const struct option_spec *o = options; o && o->name; o++)
        if (is_option(o, word, value))
            return o;
    return NULL;
}

int command_options(const struct command *command, int argc, char **argv, const struct option_spec *options)
{
    int words = 0;
    bool only_words = false;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *value;
        if (only_words || word[0] != '-' || !word[1]) {
            argv[++words] = argv[i];
            continue;
        }
        if (strcmp(word, "--") == 0) {
            only_words = true;
            continue;
        }
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            printf("trivet %s %s\n    %s\n", command->name, command->words, command->what);
            return -ECANCELED;
        }
        const struct option_spec *option = find_option(options, word, &value);
        if (!option) {
            command_usage(command->name, "unknown option '%s'", word);
            return -EINVAL;
        }
        if (option->flag) {
            *option->flag = true;
        } else if (value || i + 1 < argc) {
            *option->value = value ? value : argv[++i];
        } else {
            command_usage(command->name, "option '%s' needs a value", word);
            return -EINVAL;
        }
    }
    argv[words + 1] = NULL;
    return words;
}

int command_usage(const char *name, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    const struct command *command = command_find(name);
    if (command)
        fprintf(stderr, "trivet %s: %s; call it: trivet %s %s\n", name, text, name, command->words);
    else
        fprintf(stderr, "trivet: %s\n", text);
    return EXIT_USAGE;
}

int command_failed(const char *name, bool json, int status, const struct tv_error *err)
{
    if (json)
        command_print_json(json_pack("{s:{s:s, s:s, s:i}}", "error", "message", err->text, "errno", strerrorname_np(-err->code),
                                     "status", status));
    fprintf(stderr, "trivet %s: %s\n", name, err->text);
    return status;
}

int command_status(const struct tv_error *err)
{
    static const int wrong_calls[] = {EINVAL, EEXIST,  ENOENT,       EACCES, EPERM, ENOMEM, EADDRINUSE,
                                      EISDIR, ENOTDIR, ENAMETOOLONG, EROFS,  EFBIG, ENOSPC, EDQUOT};
    for (size_t i = 0; i < sizeof(wrong_calls) / sizeof(wrong_calls[0]); i++)
        if (err->code == -wrong_calls[i])
            return EXIT_USAGE;
    return EXIT_FAILED;
}

// By the names that JSON-RPC answers carry; only those that decide the exit status matter.
static int code_of(const char *name)
{
    for (int code = 1; name && code < 134; code++) {
        const char *has = strerrorname_np(code);
        if (has && strcmp(has, name) == 0)
            return -code;
    }
    return -EIO;
}

int command_batch_error(const json_t *result, struct tv_error *err)
{
    size_t i;
    json_t *m;
    json_array_foreach(json_object_get(result, "machines"), i, m)
    {
        const char *text = json_string_value(json_object_get(m, "error"));
        if (text)
            return tv_error_set(err, code_of(json_string_value(json_object_get(m, "errno"))), "%s", text);
    }
    return 0;
}

int command_seconds(const char *text, unsigned *ms)
{
    char *end;
    double seconds = strtod(text, &end);
    if (end == text || *end || !(seconds >= 0 && seconds <= 86400))
        return -EINVAL;
    *ms = (unsigned)(seconds * 1000);
    return 0;
}

void command_print_json(json_t *json)
{
    char *text = json_dumps(json, JSON_INDENT(2));
    if (text)
        puts(text);
    free(text);
    json_decref(json);
}

void command_print_unproven(FILE *out, const char *prefix, const json_t *unproven)
{
    size_t i;
    json_t *one;
    json_array_foreach(unproven, i, one)
    {
        const char *name = json_string_value(json_object_get(one, "name"));
        const char *promise = json_string_value(json_object_get(one, "promise"));
        const char *because = json_string_value(json_object_get(one, "because"));
        fprintf(out, "%s%s: '%s' is taken on trust: %s\n", prefix, name ? name : "?", promise ? promise : "?",
                because ? because : "nothing was measured yet");
    }
}
