// One machine's parts and their life: see machine.h.
#include "machine/machine.h"

#include "base/clock.h"
#include "base/log.h"
#include "machine/confined.h"
#include "machine/engine/perf.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define END_TIMEOUT_NS (10 * NS_PER_S) // a vcpu that does not park by then is a bug of ours

// --- what the engine and the board ask for, on any thread

static int host_mmio_read(void *arg, uint64_t gpa, unsigned size, uint64_t *value)
{
    struct machine *m = arg;
    return bus_read(board_bus(m->board), gpa, size, value);
}

static int host_mmio_write(void *arg, uint64_t gpa, unsigned size, uint64_t value)
{
    struct machine *m = arg;
    return bus_write(board_bus(m->board), gpa, size, value);
}

static int host_port_read(void *arg, uint16_t port, unsigned size, uint64_t *value)
{
    struct machine *m = arg;
    return board_port_read(m->board, port, size, value);
}

static int host_port_write(void *arg, uint16_t port, unsigned size, uint64_t value, enum engine_exit *exit)
{
    struct machine *m = arg;
    return board_port_write(m->board, port, size, value, exit);
}

static void host_console_write(void *arg, const uint8_t *buf, size_t len_bytes)
{
    struct machine *m = arg;
    console_write(m->console, buf, len_bytes);
}

static size_t host_console_read(void *arg, uint8_t *buf, size_t len_bytes)
{
    struct machine *m = arg;
    return console_read(m->console, buf, len_bytes);
}

static int host_raise_msi(void *arg, uint64_t addr, uint32_t data)
{
    struct machine *m = arg;
    return m->engine->ops->raise_msi(m->engine, addr, data);
}

static void host_set_irq(void *arg, unsigned line, bool level)
{
    struct machine *m = arg;
    m->engine->ops->set_irq(m->engine, line, level);
}

static int host_bind_doorbell(void *arg, uint64_t gpa, int fd, bool on)
{
    struct machine *m = arg;
    return m->engine->ops->bind_doorbell(m->engine, gpa, fd, on);
}

static int host_bind_msi(void *arg, int fd, bool on, uint64_t addr, uint32_t data)
{
    struct machine *m = arg;
    return m->engine->ops->bind_msi(m->engine, fd, on, addr, data);
}

static void host_console_room(void *arg)
{
    struct machine *m = arg;
    console_room(m->console);
}

static size_t console_input(void *arg, const uint8_t *buf, size_t len_bytes)
{
    struct machine *m = arg;
    return machine_type(m, buf, len_bytes);
}

// --- standing still and going on

static void machine_go(struct machine *m)
{
    struct tv_error err = {0};
    if (board_thaw(m->board, &err) < 0) {
        machine_end(m, 3, "%s", err.text);
        return;
    }
    m->parked = false;
    m->running_since_ns = clock_now_ns();
    m->engine->ops->clock_start(m->engine);
    vcpus_run(m->vcpus);
}

static void machine_advance(struct machine *m)
{
    while (!m->active && (m->tasks || m->paused)) {
        if (!m->parked) {
            if (!m->parking)
                vcpus_park(m->vcpus);
            m->parking = true;
            return;
        }
        if (!m->tasks)
            return;
        m->active = m->tasks;
        m->tasks = m->active->next;
        m->active->next = NULL;
        m->active->fn(m, m->active->arg);
    }
    if (!m->active && m->parked && !m->ended)
        machine_go(m);
}

static void machine_parked(void *arg)
{
    struct machine *m = arg;
    m->engine->ops->clock_stop(m->engine);
    board_freeze(m->board);
    m->guest_ns += clock_now_ns() - m->running_since_ns;
    m->running_since_ns = 0;
    m->parking = false;
    m->parked = true;
    machine_advance(m);
}

void machine_when_parked(struct machine *m, machine_task_fn *fn, void *arg)
{
    struct machine_task *task = calloc(1, sizeof(*task)), **at = &m->tasks;
    if (!task) {
        log_event(LOG_ERROR, "machine", "no memory");
        abort();
    }
    task->fn = fn;
    task->arg = arg;
    while (*at)
        at = &(*at)->next;
    *at = task;
    machine_advance(m);
}

void machine_task_done(struct machine *m)
{
    free(m->active);
    m->active = NULL;
    machine_advance(m);
}

void machine_set_paused(struct machine *m, bool paused)
{
    m->paused = paused;
    machine_advance(m);
}

// --- the end

static void task_end(struct machine *m, void *arg)
{
    (void)arg;
    control_tell_stopped(m->control, m->exit_status, m->reason);
    loop_stop(m->loop); // the task is never done: nothing goes on
}

static void end_overdue(void *arg)
{
    struct machine *m = arg;
    log_event(LOG_ERROR, "machine", "vcpus do not stop", LOG_STR("machine", m->config.name));
    _exit(3);
}

void machine_end(struct machine *m, int exit_status, const char *format, ...)
{
    va_list args;
    if (m->ended)
        return;
    m->ended = true;
    m->exit_status = exit_status;
    va_start(args, format);
    vsnprintf(m->reason, sizeof(m->reason), format, args);
    va_end(args);
    loop_set_timer(m->end_timer, END_TIMEOUT_NS, 0);
    machine_when_parked(m, task_end, NULL);
}

static void task_reboot(struct machine *m, void *arg)
{
    struct tv_error err = {0};
    (void)arg;
    if (!m->ended && machine_reboot(m, &err) < 0)
        machine_end(m, 3, "%s", err.text);
    machine_task_done(m);
}

static void guest_ended(void *arg, enum engine_exit exit)
{
    struct machine *m = arg;
    pvpanic_tell(m->pvpanic); // what the guest said before it ended comes first
    switch (exit) {
    case ENGINE_EXIT_SHUTDOWN:
        machine_end(m, 0, "shutdown");
        break;
    case ENGINE_EXIT_WARM_REBOOT:
        if (m->warm_is_panic) {
            machine_end(m, 1, MACHINE_PANICKED);
            break;
        }
        __attribute__((fallthrough));
    case ENGINE_EXIT_REBOOT:
        if (m->config.exit_on_reboot || m->config.kernel_fd < 0)
            machine_end(m, 0, "reboot");
        else
            machine_when_parked(m, task_reboot, NULL);
        break;
    case ENGINE_EXIT_STATUS:
        machine_end(m, board_exit_status(m->board), "the guest ended with status %d", board_exit_status(m->board));
        break;
    default:
        machine_end(m, 1, "%s", m->engine->ops->failure(m->engine));
        break;
    }
}

static void signal_end(void *arg, int signo)
{
    (void)signo;
    machine_end(arg, 0, "stopped on request");
}

// --- making the parts

static void name_of_fd(int fd, const char *what, char *out, size_t size)
{
    char link[64], path[256];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = fd < 0 ? -1 : readlink(link, path, sizeof(path) - 1);
    path[n < 0 ? 0 : n] = 0;
    snprintf(out, size, path[0] == '/' ? "%s '%s'" : "%s", what, path);
}

// The rest of an x86-64 machine's RAM, above where devices are, and all of it in one piece for who saves and loads it.
static int create_high_memory(struct machine *m, struct tv_error *err)
{
    uint64_t size_bytes = m->config.memory_bytes;
    int fd = fcntl(m->mem.regions[0].fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return tv_error_set(err, -errno, "memory: %s", strerror(errno));
    int rc = guest_memory_add(&m->mem, PC_HIGH_RAM_BASE, size_bytes - PC_LOW_RAM_END, fd, PC_LOW_RAM_END, 0, err);
    if (rc < 0)
        return rc;
    void *all = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, m->mem.regions[0].fd, 0);
    if (all == MAP_FAILED)
        return tv_error_set(err, -errno, "memory: mapping %" PRIu64 " bytes: %s", size_bytes, strerror(errno));
    m->ram = all;
    return 0;
}

static int create_memory(struct machine *m, struct tv_error *err)
{
    uint64_t size_bytes = m->config.memory_bytes;
    bool is_pc = m->engine_ops->arch == ENGINE_X86_64, is_split = is_pc && size_bytes > PC_LOW_RAM_END;
    int fd = (m->config.hugepages ? guest_ram_create_huge : guest_ram_create)(m->config.name, size_bytes, err);
    if (fd < 0)
        return fd;
    int rc = guest_memory_add(&m->mem, is_pc ? 0 : MAP_RAM_BASE, is_split ? PC_LOW_RAM_END : size_bytes, fd, 0, 0, err);
    if (rc == 0 && is_split)
        rc = create_high_memory(m, err);
    else if (rc == 0)
        m->ram = m->mem.regions[0].host;
    return rc < 0 ? rc : guest_memory_guard_install(err);
}

static int create_console(struct machine *m, struct tv_error *err)
{
    struct console_config config = {.loop = m->loop,
                                    .listen_fd = m->config.console_listen_fd,
                                    .fd = m->config.console_fd,
                                    .log_fd = m->config.log_fd,
                                    .input = console_input,
                                    .arg = m};
    m->config.console_listen_fd = m->config.console_fd = m->config.log_fd = -1;
    m->console = console_create(&config, err);
    return m->console ? 0 : -EINVAL;
}

static int create_perf(struct machine *m, struct tv_error *err)
{
    int map_fd = m->config.perf_map_fd, jitdump_fd = m->config.jitdump_fd;
    m->config.perf_map_fd = m->config.jitdump_fd = -1;
    return map_fd < 0 && jitdump_fd < 0 ? 0 : perf_create(&m->perf, map_fd, jitdump_fd, err);
}

static int create_engine_and_board(struct machine *m, struct tv_error *err)
{
    struct engine_config engine = {.mem = &m->mem,
                                   .n_vcpus = m->config.cpus,
                                   .imsic_base = MAP_IMSIC_BASE,
                                   .kvm_fd = m->config.kvm_fd,
                                   .cpu = m->config.cpu,
                                   .perf = m->perf,
                                   .audit_instructions = m->config.audit_instructions,
                                   .host = {.arg = m,
                                            .mmio_read = host_mmio_read,
                                            .mmio_write = host_mmio_write,
                                            .port_read = host_port_read,
                                            .port_write = host_port_write,
                                            .console_write = host_console_write,
                                            .console_read = host_console_read}};
    struct board_config board = {.loop = m->loop,
                                 .mem = &m->mem,
                                 .n_vcpus = m->config.cpus,
                                 .arch = m->engine_ops->arch,
                                 .arg = m,
                                 .raise_msi = host_raise_msi,
                                 .set_irq = host_set_irq,
                                 .bind_doorbell = m->engine_ops->bind_doorbell ? host_bind_doorbell : NULL,
                                 .bind_msi = m->engine_ops->bind_msi ? host_bind_msi : NULL,
                                 .console_output = host_console_write,
                                 .console_room = host_console_room};
    m->engine = m->engine_ops->create(&engine, err);
    if (!m->engine)
        return -EINVAL;
    m->board = board_create(&board, err);
    return m->board ? 0 : -EINVAL;
}

static int create_vcpus(struct machine *m, struct tv_error *err)
{
    struct vcpus_config config = {.loop = m->loop,
                                  .engine = m->engine,
                                  .n = m->config.cpus,
                                  .calls = &machine_lists(m->engine_ops->name)->vcpu,
                                  .arg = m,
                                  .ended = guest_ended,
                                  .parked = machine_parked};
    static const int signals[] = {SIGTERM, SIGINT};
    for (size_t i = 0; i < 2; i++) { // before there are threads
        m->signals[i] = loop_add_signal(m->loop, signals[i], signal_end, m, err);
        if (!m->signals[i])
            return -EINVAL;
    }
    m->end_timer = loop_add_timer(m->loop, end_overdue, m, err);
    if (!m->end_timer)
        return -EINVAL;
    m->vcpus = vcpus_create(&config, err);
    return m->vcpus ? 0 : -EINVAL;
}

static int create_control(struct machine *m, struct tv_error *err)
{
    int fd = m->config.control_fd;
    m->config.control_fd = -1;
    if (fd >= 0)
        m->control = control_create(m, fd, err);
    return fd < 0 || m->control ? 0 : -EINVAL;
}

static int machine_init(struct machine *m, struct tv_error *err)
{
    m->created_ns = clock_now_ns();
    m->statm_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    name_of_fd(m->config.kernel_fd, "kernel", m->kernel_name, sizeof(m->kernel_name));
    name_of_fd(m->config.initrd_fd, "initrd", m->initrd_name, sizeof(m->initrd_name));
    m->engine_ops = engine_find(m->config.engine, err);
    if (!m->engine_ops)
        return -EINVAL;
    // From here on foreign bytes are read: the kernel, a saved machine, what the services say.
    const bool is_profiled = m->config.perf_map_fd >= 0 || m->config.jitdump_fd >= 0;
    int rc = confine_process(m->config.confine, &machine_lists(m->engine_ops->name)->start, is_profiled, NULL, err);
    if (rc == 0)
        rc = create_memory(m, err);
    if (rc == 0)
        rc = create_perf(m, err);
    if (rc == 0)
        rc = create_engine_and_board(m, err);
    if (rc == 0)
        rc = create_console(m, err);
    if (rc == 0)
        rc = machine_add_devices(m, err);
    if (rc < 0)
        return rc;
    board_freeze(m->board);
    m->parked = true;
    rc = m->config.restore_fd >= 0 ? machine_restore(m, err) : machine_boot(m, err);
    if (rc == 0)
        rc = create_vcpus(m, err);
    if (rc == 0)
        rc = create_control(m, err);
    if (rc == 0 && (rc = confine_thread(&machine_lists(m->engine_ops->name)->loop)) < 0)
        tv_error_set(err, rc, "cannot be confined: %s", strerror(-rc));
    if (rc == 0)
        machine_go(m);
    return rc;
}

struct machine *machine_create(struct config *config, struct loop *loop, struct tv_error *err)
{
    struct machine *m = calloc(1, sizeof(*m));
    if (!m) {
        config_fini(config);
        tv_error_set(err, -ENOMEM, "machine '%s': no memory", config->name);
        return NULL;
    }
    m->config = *config;
    *config = (struct config){0};
    m->loop = loop;
    m->statm_fd = -1;
    guest_memory_init(&m->mem);
    if (machine_init(m, err) < 0) {
        tv_error_prefix(err, "machine '%s'", m->config.name);
        machine_destroy(m);
        return NULL;
    }
    return m;
}

static void free_tasks(struct machine_task *task)
{
    while (task) {
        struct machine_task *next = task->next;
        free(task);
        task = next;
    }
}

void machine_destroy(struct machine *m)
{
    if (!m)
        return;
    control_destroy(m->control);
    vcpus_destroy(m->vcpus);
    loop_remove(m->end_timer);
    loop_remove(m->signals[0]);
    loop_remove(m->signals[1]);
    console_destroy(m->console);
    if (m->board)
        board_destroy(m->board);
    if (m->engine)
        m->engine->ops->destroy(m->engine);
    perf_destroy(m->perf);
    free_tasks(m->active);
    free_tasks(m->tasks);
    if (m->ram && m->mem.n_regions > 1)
        munmap(m->ram, m->config.memory_bytes);
    guest_memory_fini(&m->mem);
    config_fini(&m->config);
    if (m->statm_fd >= 0)
        close(m->statm_fd);
    free(m);
}

// --- figures

uint64_t machine_resident_bytes(const struct machine *m)
{
    char text[128];
    unsigned long long size, resident;
    ssize_t n = m->statm_fd < 0 ? -1 : pread(m->statm_fd, text, sizeof(text) - 1, 0);
    text[n < 0 ? 0 : n] = 0;
    if (sscanf(text, "%llu %llu", &size, &resident) != 2)
        return 0;
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t machine_guest_ns(const struct machine *m)
{
    return m->guest_ns + (m->running_since_ns ? clock_now_ns() - m->running_since_ns : 0);
}

uint8_t *machine_ram(const struct machine *m)
{
    return m->ram;
}
