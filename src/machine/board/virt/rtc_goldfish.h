// The Goldfish real-time clock ("goldfish_rtc" of the Android emulator's documents): wall-clock nanoseconds and an alarm.
// Register accesses on vcpu threads, the alarm on the loop's; the lock is rtc.lock.
#pragma once

#include "base/error.h"
#include "base/loop.h"
#include "base/state.h"
#include "machine/board/bus.h"

#include <stdbool.h>
#include <stdint.h>

struct rtc;

struct rtc_config {
    struct loop *loop; // borrowed
    void *arg;
    void (*irq)(void *arg, bool level); // called with the clock's lock held
};

struct rtc *rtc_create(const struct rtc_config *config, struct tv_error *err);
void rtc_destroy(struct rtc *rtc);
void rtc_reset(struct rtc *rtc);
void rtc_freeze(struct rtc *rtc); // no alarm goes off
void rtc_thaw(struct rtc *rtc);   // one that was missed does now
int rtc_state(struct rtc *rtc, struct state *s);

extern const struct bus_ops rtc_bus_ops;
