// Subcommands of `trivet`: one file each, NAME.c.
//
// A command gets argv with argv[0] its own name and returns the exit status. Wrong calls are EXIT_USAGE with one line on standard
// error; operations that fail are EXIT_FAILED with one line, or a JSON object {"error": {...}} when --json was given.
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *words; // what follows the name
    const char *what;  // one line
};

extern const struct command commands[]; // ends with a NULL name

// One option of a command. A flag has value NULL and sets *flag; another stores the word that follows it (or "=word").
struct option_spec {
    const char *name; // "--json"; a short form may follow a bar: "--follow|-f"
    bool *flag;
    const char **value;
};

// Takes the options out of argv, wherever they stand ("--" ends them) and leaves the other words in argv[1..]; returns how many
// words are left, or -EINVAL after having said what is wrong. Options may be NULL. --help prints the command's line and returns
// -ECANCELED.
int command_options(const struct command *command, int argc, char **argv, const struct option_spec *options);

// "trivet NAME: TEXT" and how it is called; returns EXIT_USAGE.
int command_usage(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));
// The same for a failed operation; returns EXIT_FAILED, or EXIT_USAGE where the error is one of the call (-EINVAL, -ENOENT of a
// file).
int command_failed(const char *name, bool json, int status, const struct tv_error *err);
// The exit status for an error: EXIT_USAGE where the call, a file, a name or this host is what is wrong, else EXIT_FAILED.
int command_status(const struct tv_error *err);
// The first error in trivetd's answer for several machines, or 0.
int command_batch_error(const json_t *result, struct tv_error *err);
// What a store takes on trust, a line for each on `out`, which begins with `prefix`; NULL is nothing.
void command_print_unproven(FILE *out, const char *prefix, const json_t *unproven);
// "30" or "0.5" seconds; -EINVAL if it is none.
int command_seconds(const char *text, unsigned *ms);
// Takes json; prints it on standard output.
void command_print_json(json_t *json);

const struct command *command_find(const char *name);

int cmd_image(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_up(int argc, char **argv);
int cmd_down(int argc, char **argv);
int cmd_config(int argc, char **argv);
int cmd_ps(int argc, char **argv);
int cmd_start(int argc, char **argv);
int cmd_stop(int argc, char **argv);
int cmd_kill(int argc, char **argv);
int cmd_pause(int argc, char **argv);
int cmd_resume(int argc, char **argv);
int cmd_save(int argc, char **argv);
int cmd_restore(int argc, char **argv);
int cmd_console(int argc, char **argv);
int cmd_logs(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_metrics(int argc, char **argv);
int cmd_disk(int argc, char **argv);
int cmd_promises(int argc, char **argv);
int cmd_net(int argc, char **argv);
int cmd_machine(int argc, char **argv);
