// Confinement of a worker: what a process gives up once it has its descriptors. docs/security.md says against whom.
//
// A worker confines itself, since only it knows where its start ends: main() calls confine_process() as soon as it has read its
// configuration, before any foreign byte, while it has one thread. Then each thread narrows what it may ask of the kernel by
// confine_thread() with its own list. Filters add up: a call is made only if every list that was put on says so, and nothing takes
// one off.
//
// A call that is on no list is not made: the process ends by SIGSYS, and says on its standard error which call it was, of which
// thread.
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum confine_mode {
    CONFINE_BEST,     // all that this host lets us have; what it does not is said in the state
    CONFINE_REQUIRED, // all, or no start
    CONFINE_OFF,
};

// "required", "best" or "off"; -EINVAL.
int confine_mode_parse(const char *text, enum confine_mode *mode, struct tv_error *err);

// An argument of a call: (argument & mask) == value.
struct confine_test {
    uint8_t arg;  // 0 to 5
    bool is_self; // value is our own process id
    uint64_t mask, value;
};

// One way in which a call may be made: with no tests in any, with tests only if all of them hold. Several rows of one call: any.
#define CONFINE_TESTS_MAX 3
struct confine_rule {
    int call;   // SYS_…
    int refuse; // 0: allowed; else the call is not made and fails with this errno, as it does on kernels that lack it
    uint8_t n_tests;
    struct confine_test tests[CONFINE_TESTS_MAX];
};

#define CONFINE_ALLOW(name)                                                                                                        \
    {                                                                                                                              \
        .call = SYS_##name                                                                                                         \
    }
#define CONFINE_REFUSE(name, error)                                                                                                \
    {                                                                                                                              \
        .call = SYS_##name, .refuse = (error)                                                                                      \
    }
#define CONFINE_TEST(n, m, v)                                                                                                      \
    {                                                                                                                              \
        .arg = (n), .mask = (m), .value = (v)                                                                                      \
    }
#define CONFINE_SELF(n)                                                                                                            \
    {                                                                                                                              \
        .arg = (n), .is_self = true, .mask = UINT32_MAX                                                                            \
    }
#define CONFINE_IF(name, ...)                                                                                                      \
    {                                                                                                                              \
        .call = SYS_##name, .n_tests = sizeof((struct confine_test[]){__VA_ARGS__}) / sizeof(struct confine_test), .tests = {      \
            __VA_ARGS__                                                                                                            \
        }                                                                                                                          \
    }

struct confine_list {
    const struct confine_rule *rules;
    size_t n;
};

// What a process has given up, for stats and for whoever starts it.
struct confine_state {
    enum confine_mode mode;
    bool namespaces; // its own mount (an empty root), network, IPC and UTS namespaces
    bool user;       // a uid that is nobody else's, or its own user namespace; in either, no capability
    int landlock;    // the ABI's version; 0: the kernel has none
    bool seccomp;
    char lacking[160]; // what is missing, for a person; "" if nothing
};

// Namespaces, uid, capabilities, no_new_privs, no core dumps, Landlock, and `list` as the first filter. One thread must be there.
// On an error with CONFINE_REQUIRED nothing may be assumed and the process should end. `stays_dumpable`: somebody is meant to look
// into it (perf).
int confine_process(enum confine_mode mode, const struct confine_list *list, bool stays_dumpable, struct confine_state *out,
                    struct tv_error *err);

// Puts `list` onto the calling thread and those it starts. Does nothing in a process that was not confined. -errno.
int confine_thread(const struct confine_list *list);

// As confine_process(), of this process.
const struct confine_state *confine_state(void);

// --- for tests

struct sock_filter;
// The program for a list, in `out`: its length, or -E2BIG. `self`: our process id.
int confine_assemble(const struct confine_list *list, uint32_t self, struct sock_filter *out, size_t room);
