// Verdicts of disks that no store has now, from the record of the last one that had them: see daemon.h. The record is read each
// time that somebody asks; a store may be writing to it, and each of its sectors is good by itself.
#include "control/cleanup.h"
#include "control/daemon/daemon.h"
#include "control/files.h"
#include "control/paths.h"

#include "base/clock.h"
#include "promise/archive.h"
#include "promise/describe.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

struct promise_archive *daemon_read_verdicts(const struct daemon *d)
{
    char path[PATH_MAX];
    char *bytes = NULL;
    size_t len_bytes = 0;
    struct tv_error err = {0};
    struct promise_archive *a = promise_archive_create();
    if (a && (path_format(path, &err, "%s/verdicts", d->state_dir) ||
              file_read_all(path, PROMISE_ARCHIVE_BYTES_MAX, &bytes, &len_bytes, &err) ||
              promise_archive_load(a, bytes, len_bytes, &err))) {
        promise_archive_destroy(a); // no store has written one, or it holds something else, which the store tells of
        a = NULL;
    }
    free(bytes);
    return a;
}

static struct promise_moment moment(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (struct promise_moment){.now_ns = clock_now_ns(),
                                   .unix_ms = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / NS_PER_MS};
}

// Of promises that were ever judged.
static json_t *describe(struct promise_watch *w, uint32_t slot, uint64_t now_ns)
{
    struct promise_verdict verdicts[PROMISE_SET_MAX];
    json_t *list = json_array();
    const unsigned n = promise_watch_verdicts(w, slot, verdicts);
    for (unsigned i = 0; i < n; i++)
        if (verdicts[i].all.judged_ms)
            json_array_append_new(list, promise_describe_verdict(&verdicts[i], now_ns));
    return list;
}

json_t *daemon_recorded_verdicts(struct promise_archive *a, const char *label, const char *promises)
{
    const struct promise_moment now = moment();
    const struct promise_watch_options options = {PROMISE_WATCH_DEFAULTS, .holders_max = 1};
    struct promise_set set = {.resource = PROMISE_DISK};
    struct promise_watch *w = a ? promise_watch_create(&options, now.now_ns) : NULL;
    json_t *list = NULL;
    uint32_t slot = 0;
    if (w && !promise_set_parse(&set, PROMISE_DISK, promises, NULL) &&
        !promise_watch_join(w, label, &set, now.now_ns, &slot, NULL)) {
        promise_archive_resume(a, w, slot, &now);
        list = describe(w, slot, now.now_ns);
    }
    promise_watch_destroy(w);
    return list ? list : json_array();
}
