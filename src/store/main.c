// trivet-store: the process. Disks come from the command line (--disk, for users of QEMU and others) or by the control socket (from
// trivetd, which opens everything). Ends on SIGTERM, SIGINT or store.quit, when all that was taken from the queues is done.
#include "base/log.h"
#include "base/loop.h"
#include "base/rpc.h"
#include "store/listen.h"
#include "store/open.h"
#include "store/options.h"
#include "store/store.h"
#include "store/verdict_file.h"
#include "store/volume/overlay_shadow.h"
#include "vhost/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct program {
    struct loop *loop;
    struct store *store;
    struct rpc_server *control;
    int shadow_fd, verdicts_fd;
    struct loop_source *signals[2];
    unsigned n_sockets;
    const char *sockets[OPTIONS_DISKS_MAX + OPTIONS_NBD_MAX]; // of the command line's, made by us
    const char *control_path;                                 // NULL: no socket was made
};

static void stop(void *arg)
{
    struct program *p = arg;
    loop_stop(p->loop);
}

static void on_signal(void *arg, int signo)
{
    log_event(LOG_INFO, "store", "asked to end", LOG_STR("signal", strsignal(signo)));
    stop(arg);
}

// Nobody is served yet who could suffer, and on a busy host the last writes of a killed store take their time. Its socket comes
// afterwards: who connects to it gets answers.
#define START_LOCK_WAIT_MS 60000

static int open_disk(struct program *p, const struct option_disk *option, json_t *volume, struct store_fds *fds,
                     struct tv_error *err)
{
    const struct store_open_options open = {.read_only = option->disk.read_only, .lock_wait_ms = START_LOCK_WAIT_MS};
    int r = store_open_volume(volume, &open, fds, err);
    if (r)
        return tv_error_prefix(err, "disk '%s'", option->disk.name);
    struct disk_config config = option->disk;
    config.volume = volume;
    config.vhost = -1;
    if (option->socket) {
        int listen_fd = rpc_listen(option->socket, 0600, err);
        if (listen_fd < 0)
            return listen_fd;
        p->sockets[p->n_sockets++] = option->socket;
        config.vhost = (int)fds->n;
        fds->fd[fds->n++] = listen_fd;
    }
    return store_add_disk(p->store, &config, fds->fd, fds->n, err);
}

static int add_disk(struct program *p, const struct option_disk *option, struct tv_error *err)
{
    struct store_fds fds = {0};
    json_t *volume = NULL;
    int r = 0;
    if (option->volume)
        volume = json_deep_copy(option->volume);
    else
        r = store_load_volume(option->path, &volume, err);
    if (!r)
        r = open_disk(p, option, volume, &fds, err);
    if (r)
        store_close_fds(&fds);
    json_decref(volume);
    return r;
}

// ---- NBD ----

static int load_texts(const struct option_nbd *option, char *texts[4], struct tv_error *err)
{
    const char *const paths[4] = {option->certificate, option->key, option->ca, option->psk};
    int r = 0;
    for (unsigned i = 0; i < 4 && !r && !option->tls_off; i++)
        if (paths[i])
            r = listen_load_text(paths[i], &texts[i], err);
    return r;
}

static int open_nbd(struct program *p, const struct option_nbd *option, char *texts[4], struct tv_error *err)
{
    const struct store_nbd_config config = {
        .name = option->address,
        .exports = option->exports,
        .tls_required = option->tls_required,
        .certificate = texts[0],
        .key = texts[1],
        .ca = texts[2],
        .psk = texts[3],
    };
    const char *path;
    int fd = listen_at(option->address, &path, err);
    if (fd < 0)
        return fd;
    if (path)
        p->sockets[p->n_sockets++] = path;
    return store_nbd_listen(p->store, &config, fd, err);
}

static int add_nbd(struct program *p, const struct option_nbd *option, struct tv_error *err)
{
    char *texts[4] = {0};
    int r = load_texts(option, texts, err);
    if (!r)
        r = open_nbd(p, option, texts, err);
    for (unsigned i = 0; i < 4; i++) {
        if (texts[i])
            explicit_bzero(texts[i], strlen(texts[i]));
        free(texts[i]);
    }
    return r;
}

static int check_control(int fd, struct tv_error *err)
{
    int listening = 0;
    socklen_t len = sizeof(listening);
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0 || !listening)
        return tv_error_set(err, -EINVAL, "--control %d: not a listening socket", fd);
    return 0;
}

static int serve_control(struct program *p, const struct options *options, struct tv_error *err)
{
    int fd = options->control_fd;
    if (!options->control_path && fd < 0)
        return 0;
    if (options->control_path) {
        fd = rpc_listen(options->control_path, 0600, err);
        p->control_path = fd < 0 ? NULL : options->control_path;
    } else if (check_control(fd, err)) {
        return err->code;
    }
    if (fd < 0)
        return fd;
    p->control = store_serve_control(p->store, p->loop, fd, stop, p, err);
    return p->control ? 0 : err->code;
}

static int open_shadow_folder(void)
{
    struct tv_error err = {0};
    int fd = overlay_shadow_open_folder(&err);
    if (fd < 0)
        log_event(LOG_WARN, "store", "what guests do not flush is lost from overlays if this store is killed",
                  LOG_STR("because", err.text));
    return fd;
}

static int open_verdicts(struct program *p, const struct options *options, struct tv_error *err)
{
    if (options->verdicts_path) {
        p->verdicts_fd = verdict_file_open(options->verdicts_path, err);
        return p->verdicts_fd < 0 ? p->verdicts_fd : 0;
    }
    if (options->verdicts_fd >= 0 && fcntl(options->verdicts_fd, F_GETFD) < 0)
        return tv_error_set(err, -EBADF, "--verdicts %d: not an open descriptor", options->verdicts_fd);
    p->verdicts_fd = options->verdicts_fd;
    return 0;
}

static int start(struct program *p, const struct options *options, struct tv_error *err)
{
    p->loop = loop_create(err);
    if (!p->loop)
        return err->code;
    // Before the engine's threads, so that they inherit the mask.
    p->signals[0] = loop_add_signal(p->loop, SIGTERM, on_signal, p, err);
    p->signals[1] = loop_add_signal(p->loop, SIGINT, on_signal, p, err);
    if (!p->signals[0] || !p->signals[1])
        return err->code;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); // a write past the limit of file sizes: an error for the guest, not the end of all
    int r = guest_memory_guard_install(err);
    if (r)
        return r;
    r = open_verdicts(p, options, err);
    if (r)
        return r;
    p->shadow_fd = open_shadow_folder();
    struct store_config config = {
        .no_uring = options->no_uring,
        .scheduler = options->scheduler,
        .shadow_fd = p->shadow_fd,
        .verdicts_fd = p->verdicts_fd,
        .poll_us = options->poll_us,
    };
    p->store = store_create(p->loop, &config, err);
    if (!p->store)
        return err->code;
    for (unsigned i = 0; i < options->n_disks && !r; i++)
        r = add_disk(p, &options->disks[i], err);
    for (unsigned i = 0; i < options->n_nbd && !r; i++)
        r = add_nbd(p, &options->nbd[i], err);
    return r ? r : serve_control(p, options, err);
}

static void finish(struct program *p)
{
    rpc_server_destroy(p->control);
    store_destroy(p->store);
    if (p->shadow_fd >= 0)
        close(p->shadow_fd);
    if (p->verdicts_fd >= 0)
        close(p->verdicts_fd);
    for (unsigned i = 0; i < p->n_sockets; i++)
        unlink(p->sockets[i]);
    if (p->control_path)
        unlink(p->control_path);
    loop_remove(p->signals[0]);
    loop_remove(p->signals[1]);
    if (p->loop)
        loop_destroy(p->loop);
}

int main(int argc, char **argv)
{
    struct options options;
    struct tv_error err = {0};
    int r = options_parse(&options, argc, argv, &err);
    if (r == OPTIONS_HELP || r == OPTIONS_VERSION) {
        fputs(r == OPTIONS_HELP ? options_help : options_version, stdout);
        return 0;
    }
    if (r) {
        fprintf(stderr, "trivet-store: %s\n", err.text);
        return 2;
    }
    log_configure(LOG_INFO, options.log_json);
    struct program p = {.shadow_fd = -1, .verdicts_fd = -1};
    r = start(&p, &options, &err);
    if (r) {
        fprintf(stderr, "trivet-store: %s\n", err.text);
    } else {
        log_event(LOG_INFO, "store", "serving", LOG_U64("disks", options.n_disks), LOG_STR("engine", store_describe(p.store)));
        r = loop_run(p.loop);
    }
    finish(&p);
    options_free(&options);
    return r ? 2 : 0;
}
