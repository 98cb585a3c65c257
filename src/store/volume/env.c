// What volumes share: see env.h.
#include "store/volume/env.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define FILE_BUFFERS 64u

int volume_env_init(struct volume_env *env, struct loop *loop, struct io_engine *io, struct tv_error *err)
{
    *env = (struct volume_env){.loop = loop, .io = io, .shadow_fd = -1};
    env->finished_tail = &env->finished;
    void *zeroes = mmap(NULL, VOLUME_ZEROES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (zeroes == MAP_FAILED)
        return tv_error_set(err, -errno, "buffer of zeroes: %s", strerror(errno));
    env->zeroes = zeroes;
    return bounce_init(&env->bounce, FILE_BUFFERS, err);
}

void volume_env_fini(struct volume_env *env)
{
    assert(!env->finished);
    bounce_fini(&env->bounce);
    if (env->zeroes)
        munmap(env->zeroes, VOLUME_ZEROES);
    env->zeroes = NULL;
}

void volume_finish_later(struct volume_env *env, struct volume_request *request, int result)
{
    request->result = result;
    request->link = NULL;
    *env->finished_tail = request;
    env->finished_tail = &request->link;
}

void volume_end_later(struct volume_env *env, struct volume_ender *ender)
{
    if (ender->is_marked)
        return;
    ender->is_marked = true;
    ender->next = env->enders;
    env->enders = ender;
}

void volume_end_never(struct volume_env *env, struct volume_ender *ender)
{
    struct volume_ender **at = &env->enders;
    while (*at && *at != ender)
        at = &(*at)->next;
    if (*at)
        *at = ender->next;
    ender->is_marked = false;
}

static void run_enders(struct volume_env *env)
{
    struct volume_ender *ender = env->enders;
    env->enders = NULL;
    for (struct volume_ender *next; ender; ender = next) {
        next = ender->next;
        ender->is_marked = false;
        ender->end(ender);
    }
}

bool volume_env_deliver(struct volume_env *env)
{
    run_enders(env);
    struct volume_request *request = env->finished;
    if (!request)
        return false;
    env->finished = NULL;
    env->finished_tail = &env->finished;
    for (struct volume_request *next; request; request = next) {
        next = request->link;
        request->done(request, request->result);
    }
    return true;
}
