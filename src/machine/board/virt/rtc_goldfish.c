// The Goldfish real-time clock: see rtc_goldfish.h.
#include "machine/board/virt/rtc_goldfish.h"

#include "base/clock.h"
#include "machine/board/doorbell.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

enum {
    REG_TIME_LOW = 0x00, // read: latches the high word; write: sets the clock to (high word written before, this)
    REG_TIME_HIGH = 0x04,
    REG_ALARM_LOW = 0x08, // write: arms the alarm at (high word written before, this)
    REG_ALARM_HIGH = 0x0c,
    REG_IRQ_ENABLED = 0x10,
    REG_CLEAR_ALARM = 0x14,
    REG_ALARM_STATUS = 0x18, // 1: armed
    REG_CLEAR_INTERRUPT = 0x1c,
};

struct rtc {
    struct rtc_config config;
    struct loop_source *timer;      // the loop's thread only
    struct doorbell *alarm_changed; // timers belong to the loop's thread
    pthread_mutex_t lock;           // guards all below
    uint64_t offset_ns;             // guest's clock minus the host's, modulo 2^64
    uint64_t alarm_ns;              // guest's clock
    uint32_t time_high_read, time_high_written, alarm_high;
    bool armed, pending, enabled;
    bool irq_level;
    bool frozen;
};

static uint64_t host_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static uint64_t guest_now_ns(const struct rtc *r)
{
    return host_now_ns() + r->offset_ns;
}

static void update_irq(struct rtc *r)
{
    bool level = r->pending && r->enabled;
    if (level == r->irq_level)
        return;
    r->irq_level = level;
    r->config.irq(r->config.arg, level);
}

static void go_off_if_due(struct rtc *r)
{
    if (!r->armed || r->frozen || guest_now_ns(r) < r->alarm_ns)
        return;
    r->armed = false;
    r->pending = true;
    update_irq(r);
}

// On the loop: the alarm may be due; sets the timer for what is left. A clock that is moved is noticed within a minute.
static void look_at_alarm(void *arg)
{
    struct rtc *r = arg;
    pthread_mutex_lock(&r->lock);
    go_off_if_due(r);
    uint64_t wait_ns = 0;
    if (r->armed && !r->frozen) {
        uint64_t now = guest_now_ns(r);
        wait_ns = r->alarm_ns > now ? r->alarm_ns - now : 1;
        if (wait_ns > 60 * NS_PER_S)
            wait_ns = 60 * NS_PER_S;
    }
    pthread_mutex_unlock(&r->lock);
    loop_set_timer(r->timer, wait_ns, 0);
}

static uint32_t read_register(struct rtc *r, uint64_t offset)
{
    switch (offset) {
    case REG_TIME_LOW: {
        uint64_t now = guest_now_ns(r);
        r->time_high_read = (uint32_t)(now >> 32);
        return (uint32_t)now;
    }
    case REG_TIME_HIGH:
        return r->time_high_read;
    case REG_ALARM_LOW:
        return (uint32_t)r->alarm_ns;
    case REG_ALARM_HIGH:
        return (uint32_t)(r->alarm_ns >> 32);
    case REG_IRQ_ENABLED:
        return r->enabled;
    case REG_ALARM_STATUS:
        return r->armed;
    default:
        return 0;
    }
}

static void write_register(struct rtc *r, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case REG_TIME_LOW:
        r->offset_ns = ((uint64_t)r->time_high_written << 32 | value) - host_now_ns();
        doorbell_ring(r->alarm_changed);
        break;
    case REG_TIME_HIGH:
        r->time_high_written = value;
        break;
    case REG_ALARM_LOW:
        r->alarm_ns = (uint64_t)r->alarm_high << 32 | value;
        r->armed = true;
        doorbell_ring(r->alarm_changed);
        break;
    case REG_ALARM_HIGH:
        r->alarm_high = value;
        break;
    case REG_IRQ_ENABLED:
        r->enabled = value & 1;
        break;
    case REG_CLEAR_ALARM:
        r->armed = false;
        break;
    case REG_CLEAR_INTERRUPT:
        r->pending = false;
        break;
    default:
        break;
    }
}

static uint64_t rtc_read(void *device, uint64_t offset, unsigned size)
{
    struct rtc *r = device;
    if (size != 4)
        return 0;
    pthread_mutex_lock(&r->lock);
    uint32_t value = read_register(r, offset);
    pthread_mutex_unlock(&r->lock);
    return value;
}

static void rtc_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct rtc *r = device;
    if (size != 4)
        return;
    pthread_mutex_lock(&r->lock);
    write_register(r, offset, (uint32_t)value);
    go_off_if_due(r);
    update_irq(r);
    pthread_mutex_unlock(&r->lock);
}

const struct bus_ops rtc_bus_ops = {.name = "rtc", .read = rtc_read, .write = rtc_write};

struct rtc *rtc_create(const struct rtc_config *config, struct tv_error *err)
{
    struct rtc *r = calloc(1, sizeof(*r));
    if (!r) {
        tv_error_set(err, -ENOMEM, "no memory for the clock");
        return NULL;
    }
    r->config = *config;
    pthread_mutex_init(&r->lock, NULL);
    r->timer = loop_add_timer(config->loop, look_at_alarm, r, err);
    if (r->timer)
        r->alarm_changed = doorbell_create(config->loop, look_at_alarm, r, err);
    if (!r->alarm_changed) {
        rtc_destroy(r);
        return NULL;
    }
    return r;
}

void rtc_destroy(struct rtc *r)
{
    if (!r)
        return;
    doorbell_destroy(r->alarm_changed);
    loop_remove(r->timer);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static void power_on(struct rtc *r)
{
    r->offset_ns = r->alarm_ns = 0;
    r->time_high_read = r->time_high_written = r->alarm_high = 0;
    r->armed = r->pending = r->enabled = false;
}

void rtc_reset(struct rtc *r)
{
    pthread_mutex_lock(&r->lock);
    power_on(r);
    update_irq(r);
    pthread_mutex_unlock(&r->lock);
    look_at_alarm(r);
}

static void set_frozen(struct rtc *r, bool frozen)
{
    pthread_mutex_lock(&r->lock);
    r->frozen = frozen;
    pthread_mutex_unlock(&r->lock);
    look_at_alarm(r);
}

void rtc_freeze(struct rtc *r)
{
    set_frozen(r, true);
}

void rtc_thaw(struct rtc *r)
{
    set_frozen(r, false);
}

int rtc_state(struct rtc *r, struct state *s)
{
    pthread_mutex_lock(&r->lock);
    state_section_begin(s, "rtc", 1);
    state_u64(s, "offset_ns", &r->offset_ns);
    state_u64(s, "alarm_ns", &r->alarm_ns);
    state_u32(s, "time_high_read", &r->time_high_read);
    state_u32(s, "time_high_written", &r->time_high_written);
    state_u32(s, "alarm_high", &r->alarm_high);
    state_bool(s, "armed", &r->armed);
    state_bool(s, "pending", &r->pending);
    state_bool(s, "enabled", &r->enabled);
    state_section_end(s);
    bool failed = state_failed(s);
    if (failed && state_is_loading(s))
        power_on(r);
    if (state_is_loading(s))
        update_irq(r);
    pthread_mutex_unlock(&r->lock);
    return failed ? -EINVAL : 0;
}
