// OIOS: the loop that holds promised latencies. See oios.h.
//
// A late request was late for one of two reasons. It waited for its turn: then the disk has too little opportunity, and gets more.
// Or the device took too long: then there is too much with the device, and the window's target is brought down. Each tick, from
// what was late (counted from NEAR of the promise on, so that there is something to act on before the promise is broken); back
// again, slowly, when next to nothing was.
//
// A smaller window may be of no use: the device takes too long by itself, or one request of others does. If for a second too many
// requests were with the device for as long as was promised, though the window is as small as it helps, the promise is given up:
// the device is kept busy as if it had not been made, but for the order of service. After a while it is tried again, each time
// later.
#include "store/sched/oios.h"

#define NEAR 0.8
#define MUCH 0.6 // of what may be late
#define LITTLE 0.3
#define BOOST_MOST 64.0
#define FADE 0.9        // of what was counted, a tick
#define FIRST_PART 0.5  // of the promise, for the time with the device: at most, and
#define LEAST_PART 0.35 // while the device takes no longer than that, a smaller window is not what it is late for the want of
#define RECOVERY 1.003
#define GIVE_UP_TICKS 64u   // a second
#define PATIENCE_TICKS 625u // ten seconds, twice as long each time
#define PATIENCE_MOST_TICKS 20000u

void latency_begin(struct dispatch_queue *queue)
{
    queue->done = queue->late_queued = queue->late_device = queue->slow[0] = queue->slow[1] = 0;
    queue->n_slow = queue->given_up = 0;
    queue->patience = PATIENCE_TICKS;
}

void latency_completed(struct dispatch_queue *queue, const struct dispatch_item *item, uint64_t now_ns)
{
    double near_ns = NEAR * (double)queue->terms.latency_ns;
    uint64_t since_ns = item->held_ns > item->enqueued_ns ? item->held_ns : item->enqueued_ns;
    queue->done += 1;
    if ((double)(now_ns - since_ns) < near_ns)
        return;
    uint64_t queued_ns = item->dispatched_ns - since_ns, device_ns = now_ns - item->dispatched_ns;
    queue->slow[0] += device_ns >= queue->terms.latency_ns;
    queue->slow[1] += device_ns >= queue->terms.latency_ns + item->ahead_ns;
    if (queued_ns > device_ns)
        queue->late_queued += 1;
    else
        queue->late_device += 1;
}

static void consider_giving_up(const struct oios_window *w, struct dispatch_queue *queue, double allowed, bool is_good)
{
    queue->given_up = is_good || !queue->given_up ? 0 : queue->given_up - 1;
    if (queue->given_up)
        return;
    bool is_least = w->delay_ns <= LEAST_PART * (double)queue->terms.latency_ns || w->most_ns <= w->large_ns;
    queue->n_slow = queue->slow[0] > allowed && is_least ? queue->n_slow + 1 : 0;
    if (queue->n_slow < GIVE_UP_TICKS)
        return;
    queue->n_slow = 0;
    queue->is_device = queue->slow[1] > allowed;
    queue->given_up = queue->patience;
    queue->patience = 2 * queue->patience < PATIENCE_MOST_TICKS ? 2 * queue->patience : PATIENCE_MOST_TICKS;
}

// Changes the disk's weight; returns by what the window's target is to change.
static double judge(struct oios *o, struct dispatch_queue *queue)
{
    double allowed = (1 - queue->terms.latency_permille / 1000.0) * queue->done;
    bool waited = queue->late_queued > MUCH * allowed, was_slow = queue->late_device > MUCH * allowed;
    bool is_good = queue->late_queued + queue->late_device < LITTLE * allowed;
    consider_giving_up(&o->window, queue, allowed, is_good);
    queue->done *= FADE;
    queue->slow[0] *= FADE;
    queue->slow[1] *= FADE;
    queue->late_queued *= FADE;
    queue->late_device *= FADE;
    queue->boost *= waited ? 1.08 : is_good ? 0.998 : 1;
    queue->boost = queue->boost < 1 ? 1 : queue->boost > BOOST_MOST ? BOOST_MOST : queue->boost;
    uint32_t weight = (uint32_t)(queue->terms.weight * queue->boost);
    if (queue->n_held)
        o->weight += (uint64_t)weight - queue->weight;
    queue->weight = weight;
    if (was_slow && o->window.delay_ns > LEAST_PART * (double)queue->terms.latency_ns)
        return 0.95;
    return is_good || (waited && !was_slow) ? RECOVERY : 1;
}

void latency_tick(struct oios *o)
{
    struct oios_window *w = &o->window;
    double most_ns = WINDOW_TARGET_MOST_NS, change = RECOVERY;
    bool is_tried = false;
    for (struct dispatch_queue *queue = o->latency; queue; queue = queue->next_latency) {
        double own = judge(o, queue), goal_ns = (double)queue->terms.latency_ns;
        if (queue->given_up)
            continue;
        is_tried = true;
        if (FIRST_PART * goal_ns < most_ns)
            most_ns = FIRST_PART * goal_ns;
        change = own < change ? own : change;
    }
    w->most_ns *= change;
    if (w->most_ns > most_ns || !is_tried)
        w->most_ns = most_ns;
    if (w->target_ns > w->most_ns)
        w->target_ns = w->most_ns;
}
