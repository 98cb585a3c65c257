// trivet console NAME: the terminal joined to a machine's console. trivet logs [-f] NAME: what it has written so far.
#include "base/loop.h"
#include "base/rpc.h"
#include "control/cleanup.h"
#include "control/client.h"
#include "control/command/command.h"
#include "control/command/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>

// A member of what trivetd knows of the machine; the caller frees it.
static int ask(const char *machine, const char *member, char **value, struct tv_error *err)
{
    cleanup_json json_t *result = NULL;
    cleanup_close int fd = client_connect(err);
    if (fd < 0)
        return fd;
    int rc = client_call(fd, "machine.get", json_pack("{s:s}", "name", machine), &result, err);
    if (rc)
        return rc;
    const char *text = json_string_value(json_object_get(result, member));
    *value = text ? strdup(text) : NULL;
    return *value ? 0 : tv_error_set(err, -ENOENT, "machine '%s' has no %s", machine, member);
}

static void leave(void *arg)
{
    loop_stop(arg);
}

static void on_signal(void *arg, int signo)
{
    (void)signo;
    loop_stop(arg);
}

static int join(int console_fd, struct tv_error *err)
{
    struct loop *loop = loop_create(err);
    if (!loop) {
        close(console_fd);
        return err->code;
    }
    const struct terminal_config config = {.loop = loop, .console_fd = console_fd, .leave = leave, .closed = leave, .arg = loop};
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < 3; i++)
        loop_add_signal(loop, numbers[i], on_signal, loop, NULL);
    struct terminal *terminal = terminal_create(&config, err);
    if (terminal)
        loop_run(loop);
    terminal_destroy(terminal);
    loop_destroy(loop);
    return terminal ? 0 : err->code;
}

int cmd_console(int argc, char **argv)
{
    int words = command_options(command_find("console"), argc, argv, NULL);
    if (words < 0)
        return words == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    if (words != 1)
        return command_usage("console", "which machine?");
    struct tv_error err = {0};
    cleanup_free char *path = NULL;
    int rc = ask(argv[1], "console", &path, &err);
    int fd = rc ? rc : rpc_connect(path, &err);
    if (!rc && fd < 0)
        tv_error_set(&err, -ESRCH, "machine '%s' does not run; start it first", argv[1]);
    if (fd < 0)
        return command_failed("console", false, command_status(&err), &err);
    if (isatty(STDIN_FILENO))
        fprintf(stderr, "console of %s; ^A x leaves it, ^A h helps\n", argv[1]);
    return join(fd, &err) ? command_failed("console", false, EXIT_FAILED, &err) : EXIT_OK;
}

// --- logs

static int copy_out(int fd)
{
    char buf[65536];
    ssize_t n;
    while ((n = read(fd, buf, sizeof(buf))) > 0)
        if (fwrite(buf, 1, (size_t)n, stdout) != (size_t)n)
            return -EPIPE;
    return fflush(stdout) == 0 ? 0 : -EPIPE;
}

// Until the file is removed (the machine was taken down) or nobody reads us any more.
static int follow(int fd, const char *path)
{
    cleanup_close int watch = inotify_init1(IN_CLOEXEC);
    if (watch < 0 || inotify_add_watch(watch, path, IN_MODIFY | IN_ATTRIB | IN_DELETE_SELF) < 0)
        return -errno;
    for (;;) {
        char events[4096];
        if (copy_out(fd))
            return 0;
        ssize_t n = read(watch, events, sizeof(events));
        if (n <= 0 || access(path, F_OK) < 0)
            return copy_out(fd);
    }
}

int cmd_logs(int argc, char **argv)
{
    bool following = false, json = false;
    const struct option_spec options[] = {{"--follow|-f", &following, NULL}, {"--json", &json, NULL}, {0}};
    int words = command_options(command_find("logs"), argc, argv, options);
    if (words < 0)
        return words == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    if (words != 1 || (json && following))
        return command_usage("logs", words != 1 ? "which machine?" : "--json and --follow exclude each other");
    struct tv_error err = {0};
    cleanup_free char *path = NULL;
    if (ask(argv[1], "log", &path, &err))
        return command_failed("logs", json, command_status(&err), &err);
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        tv_error_set(&err, -errno, "machine '%s' has no log yet (%s)", argv[1], path);
        return command_failed("logs", json, EXIT_FAILED, &err);
    }
    if (json) {
        command_print_json(json_pack("{s:s, s:s}", "name", argv[1], "log", path));
        return EXIT_OK;
    }
    signal(SIGPIPE, SIG_IGN);
    if (following)
        follow(fd, path);
    else
        copy_out(fd);
    return EXIT_OK;
}
