// OIOS: how much may be with the device at once. See oios.h.
//
// Two loops. The inner one acts on every completion: requests that take longer than the target make the window smaller, and the
// other way round; how far it moves is in proportion to the work done, so that it settles in a few windows' time on any device. The
// outer one looks for the target: in stretches of some milliseconds the window is a little larger and a little smaller in turns,
// and the target follows what that gains in throughput, until WORTH of the difference in size is all that is left of it. A device
// in which requests queue gains nothing: there the target comes down to where queueing starts, which is where a scheduler has the
// most to say.
#include "store/sched/oios.h"

#define FIRST_NS 300000.0
#define WINDOW_LEAST_NS 40000.0 // beside one and a half of the largest requests: of those, one alone does not keep a device busy
#define SMALLER 0.9
#define LARGER 1.1
#define WORTH 0.03        // gained throughput for a larger window, relative to each other
#define LONG_NS 1000000.0 // no SSD needs so much; every one of it doubles what is asked of a larger window
#define GAIN 0.3
#define STEP_MOST 0.1
#define STEP_UNBOUND -0.01 // while there is not enough to do even for the smaller window
#define TURN_LEAST_NS 4000000u
#define TURN_WINDOWS 8 // or as long as it takes to do so many windows

static double clamp(double x, double least, double most)
{
    return x < least ? least : x > most ? most : x;
}

void window_init(struct oios_window *w)
{
    *w = (struct oios_window){.size_ns = FIRST_NS, .target_ns = FIRST_NS, .delay_ns = FIRST_NS, .most_ns = WINDOW_TARGET_MOST_NS};
}

// Small, large, large, small: what goes up or down steadily meanwhile cancels out.
static bool is_large(unsigned turn)
{
    return turn == 1 || turn == 2;
}

void window_not_full(struct oios_window *w)
{
    if (!is_large(w->turn))
        w->was_bound = false;
}

static double factor(const struct oios_window *w)
{
    return is_large(w->turn) ? LARGER : SMALLER;
}

static void search(struct oios_window *w)
{
    double sum = w->rate[0] + w->rate[1], step = STEP_UNBOUND;
    if (w->was_bound && sum > 0) {
        double gained = (w->rate[1] - w->rate[0]) / (sum / 2) / (LARGER - SMALLER);
        double worth = WORTH * (1 + (w->target_ns - w->large_ns) / LONG_NS);
        step = clamp(GAIN * (gained - worth), -STEP_MOST, STEP_MOST);
    }
    double least_ns = 1.5 * w->large_ns + WINDOW_LEAST_NS;
    w->target_ns = clamp(w->target_ns * (1 + step), least_ns < w->most_ns ? least_ns : w->most_ns, w->most_ns);
    w->rate[0] = w->rate[1] = 0;
    w->was_bound = true;
}

static void end_stretch(struct oios_window *w, uint64_t now_ns)
{
    double before = factor(w);
    w->rate[is_large(w->turn)] += w->done_ns / (double)(now_ns - w->from_ns);
    w->turn = (w->turn + 1) % 4;
    if (!w->turn)
        search(w);
    w->size_ns *= factor(w) / before;
    w->done_ns = 0;
    w->since_ns = now_ns;
    w->from_ns = now_ns + (uint64_t)w->delay_ns; // what is with the device now belongs to the last one
}

// What was completed together, a 32nd of the window or one request, leads the window towards the target.
static void adjust(struct oios_window *w, uint64_t now_ns)
{
    double part = clamp(w->sum_ns / w->size_ns, 0, 1), aim = w->target_ns * factor(w);
    w->delay_ns += (w->sum_took / w->sum_ns - w->delay_ns) * part / 2;
    w->mean_ns += (w->sum_squares / w->sum_ns - w->mean_ns) * part / 8;
    w->large_ns *= 1 - part / 256;
    double error = clamp((aim - w->delay_ns) / aim, -1, 0.5);
    if (error < 0 || w->bound)
        w->size_ns = clamp(w->size_ns * (1 + error * part / 4), w->mean_ns, WINDOW_TARGET_MOST_NS);
    if (now_ns >= w->from_ns)
        w->done_ns += w->sum_ns;
    w->sum_ns = w->sum_took = w->sum_squares = 0;
    uint64_t lasts_ns = now_ns - w->since_ns;
    if (lasts_ns >= TURN_LEAST_NS && (double)lasts_ns >= TURN_WINDOWS * w->delay_ns && now_ns > w->from_ns)
        end_stretch(w, now_ns);
}

void window_completed(struct oios_window *w, const struct dispatch_item *item, uint64_t now_ns)
{
    double cost = item->cost_ns;
    w->sum_ns += cost;
    w->sum_took += cost * (double)(now_ns - item->dispatched_ns);
    w->sum_squares += cost * cost;
    if (cost > w->large_ns && (item->kind == DISPATCH_READ || item->kind == DISPATCH_WRITE))
        w->large_ns = cost;
    if (w->sum_ns * 32 >= w->size_ns)
        adjust(w, now_ns);
}

bool window_is_full(const struct oios_window *w, uint64_t in_flight_ns)
{
    return (double)in_flight_ns + w->dither * w->mean_ns >= w->size_ns;
}

void window_let_go(struct oios_window *w)
{
    w->dither += 0.6180339887498949;
    if (w->dither >= 1)
        w->dither -= 1;
}
