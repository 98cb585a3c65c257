// OIOS: what a request costs. See oios.h.
//
// While the device is busy to the full, the time that passes is the sum of what was done in it, each thing times its cost. Short
// stretches of time, with what was completed in each, are equations for the costs; the costs are their least squares, with old
// stretches fading, and with what was believed before as one more observation: costs of what does not occur, or always occurs in
// the same proportion to something else, stay as they are.
//
// A stretch is what one disk was served in one go, and it took from when all before it was done to when all of it was. So what is
// in an equation is exact, and only its time is not, where a device does not serve in order: that makes the costs uncertain for a
// while, and not wrong. (With stretches of fixed length, and what was completed in them, large requests would seem cheaper than
// they are: what is half done at the ends is an error in the coefficients.) Requests are also under way before and after they keep
// others waiting, reads for longer than writes that go to a buffer: the least that this has been of late, by kind, is taken off.
#include "store/sched/oios.h"

#include <math.h>
#include <string.h>

#define UNIT_NS 500000.0      // the usual length of a stretch, of weight 1
#define MEMORY_NS 200000000.0 // in which a stretch fades to a third
#define LAG_NS 250000000u
#define BELIEF 2.0 // what was believed before weighs as much as so many stretches
#define COST_LEAST_NS 20.0
#define COST_MOST_NS 4e9
#define STRETCH_COST_MOST 1000000.0 // of cost; where one disk goes on for longer, this is enough
#define STRETCH_COST_LEAST 50000.0  // of cost; what is shorter is put together with the next

void cost_init(struct oios_cost *c)
{
    static const double first_ns[COST_FEATURES] = {
        [COST_READ_RANDOM] = 5000, [COST_READ_NEXT] = 5000,  [COST_READ_PAGE] = 5000, [COST_WRITE_RANDOM] = 5000,
        [COST_WRITE_NEXT] = 5000,  [COST_WRITE_PAGE] = 5000, [COST_FLUSH] = 100000,   [COST_TRIM] = 100000,
    };
    *c = (struct oios_cost){0};
    memcpy(c->ns, first_ns, sizeof(first_ns));
    memset(c->least_lag_ns, 0xff, sizeof(c->least_lag_ns));
}

static unsigned pages_of(const struct dispatch_item *item)
{
    return (unsigned)((item->len_bytes + (1u << COST_PAGE_BITS) - 1) >> COST_PAGE_BITS);
}

static const uint8_t classes[DISPATCH_KINDS][2] = {
    [DISPATCH_READ] = {COST_READ_RANDOM, COST_READ_NEXT},
    [DISPATCH_WRITE] = {COST_WRITE_RANDOM, COST_WRITE_NEXT},
    [DISPATCH_FLUSH] = {COST_FLUSH, COST_FLUSH},
    [DISPATCH_TRIM] = {COST_TRIM, COST_TRIM},
};
static const uint8_t pages[DISPATCH_KINDS] = {COST_READ_PAGE, COST_WRITE_PAGE, COST_NOTHING, COST_NOTHING};

// The stretch that the item belongs to: a new one where the last is long enough.
static struct oios_stretch *stretch_for(struct oios_cost *c, const struct dispatch_item *item)
{
    struct oios_stretch *s = &c->stretches[c->newest % COST_STRETCHES];
    bool ends = s->cost_ns >= (c->queue == item->queue ? STRETCH_COST_MOST : STRETCH_COST_LEAST);
    if ((ends || c->newest < c->good_from) && c->newest - c->oldest < COST_STRETCHES - 1) {
        s = &c->stretches[++c->newest % COST_STRETCHES];
        *s = (struct oios_stretch){0};
    }
    c->queue = item->queue;
    return s;
}

uint32_t cost_let_go(struct oios_cost *c, struct dispatch_item *item, bool is_next)
{
    unsigned class = classes[item->kind][is_next], page = pages[item->kind], n = pages_of(item);
    struct oios_stretch *s = stretch_for(c, item);
    double ns = c->ns[class] + c->ns[page] * n;
    s->n[class]++;
    s->n[page] += n;
    s->left++;
    s->cost_ns += ns;
    item->stretch = (uint8_t)(c->newest % COST_STRETCHES);
    item->cost_ns = (uint32_t)(ns < COST_MOST_NS ? ns : COST_MOST_NS);
    return item->cost_ns;
}

void cost_not_full(struct oios_cost *c)
{
    c->good_from = c->newest + 1;
}

// All stretches are wrong by about as much, whatever their length: so they count by their length.
static void add_equation(struct oios_cost *c, const struct oios_stretch *s, double elapsed_ns)
{
    double fade = exp(-s->cost_ns / MEMORY_NS), y = elapsed_ns / UNIT_NS;
    for (int i = 0; i < COST_FEATURES; i++) {
        double x = s->n[i] / UNIT_NS;
        c->right[i] = c->right[i] * fade + x * y;
        for (int j = 0; j <= i; j++)
            c->squares[i][j] = c->squares[i][j] * fade + x * s->n[j] / UNIT_NS;
    }
    c->changed = true;
    c->n_learned += c->n_learned < COST_KNOWN;
}

// How long requests of this kind are under way beside what they cost, at least, of late.
static uint64_t lag_of(const struct oios_cost *c, enum dispatch_kind kind)
{
    return c->least_lag_ns[0][kind] < c->least_lag_ns[1][kind] ? c->least_lag_ns[0][kind] : c->least_lag_ns[1][kind];
}

static void watch_lag(struct oios_cost *c, const struct dispatch_item *item, uint64_t now_ns)
{
    uint64_t took_ns = now_ns - item->dispatched_ns, lag_ns = took_ns > item->cost_ns ? took_ns - item->cost_ns : 0;
    if (now_ns >= c->lag_until_ns) {
        c->lag_until_ns = now_ns + LAG_NS;
        memcpy(c->least_lag_ns[1], c->least_lag_ns[0], sizeof(c->least_lag_ns[0]));
        for (int i = 0; i < DISPATCH_KINDS; i++)
            c->least_lag_ns[0][i] = UINT64_MAX;
    }
    if (lag_ns < c->least_lag_ns[0][item->kind])
        c->least_lag_ns[0][item->kind] = lag_ns;
}

void cost_completed(struct oios_cost *c, const struct dispatch_item *item, uint64_t now_ns)
{
    struct oios_stretch *s = &c->stretches[item->stretch];
    watch_lag(c, item, now_ns);
    int64_t end_ns = (int64_t)(now_ns - lag_of(c, item->kind));
    if (end_ns > s->end_ns)
        s->end_ns = end_ns;
    s->left--;
    for (; c->oldest < c->newest; c->oldest++) {
        s = &c->stretches[c->oldest % COST_STRETCHES];
        if (s->left)
            break;
        // What went before it must have kept the device busy as well.
        if (c->oldest > c->good_from)
            add_equation(c, s, (double)(s->end_ns - c->since_ns));
        c->since_ns = s->end_ns;
    }
}

// Solves a x = b for a symmetric positive a, of which the lower half is given; both are overwritten, b by x. Cholesky.
static void solve(double a[COST_FEATURES][COST_FEATURES], double b[COST_FEATURES])
{
    for (int i = 0; i < COST_FEATURES; i++) {
        for (int j = 0; j <= i; j++) {
            double sum = a[i][j];
            for (int k = 0; k < j; k++)
                sum -= a[i][k] * a[j][k];
            a[i][j] = i == j ? sqrt(sum > 1e-12 ? sum : 1e-12) : sum / a[j][j];
        }
        for (int k = 0; k < i; k++)
            b[i] -= a[i][k] * b[k];
        b[i] /= a[i][i];
    }
    for (int i = COST_FEATURES; i--;) {
        for (int k = i + 1; k < COST_FEATURES; k++)
            b[i] -= a[k][i] * b[k];
        b[i] /= a[i][i];
    }
}

// In units of the present costs, so that what is believed is 1 for all and weighs the same.
void cost_learn(struct oios_cost *c)
{
    double a[COST_FEATURES][COST_FEATURES], b[COST_FEATURES];
    if (!c->changed)
        return;
    c->changed = false;
    for (int i = 0; i < COST_FEATURES; i++) {
        b[i] = c->right[i] * c->ns[i] + BELIEF;
        for (int j = 0; j <= i; j++)
            a[i][j] = c->squares[i][j] * c->ns[i] * c->ns[j];
        a[i][i] += BELIEF;
    }
    solve(a, b);
    for (int i = 0; i < COST_FEATURES; i++) {
        double ns = c->ns[i] * (b[i] > 0.5 ? b[i] < 2 ? b[i] : 2 : 0.5);
        c->ns[i] = ns > COST_LEAST_NS ? ns : COST_LEAST_NS;
    }
}
