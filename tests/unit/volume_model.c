// What a volume may be read as: see volume_model.h.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "volume_model.h"

#define SECTOR MODEL_SECTOR
#define DISCARDED 1u // reads as zeroes now, and as anything after a power cut

void model_fill(uint8_t *sector, uint32_t value)
{
    for (unsigned i = 0; i < SECTOR / 4; i++) {
        const uint32_t word = value > DISCARDED ? value + i : 0;
        memcpy(sector + 4 * i, &word, sizeof(word));
    }
}

void model_init(struct volume_model *m, uint64_t seed)
{
    m->random = seed * 7919 + 1;
    m->next_value = 1000;
    m->clock = 0;
    m->n_busy = 0;
    for (unsigned a = 0; a < m->n_areas; a++)
        for (unsigned i = 0; i < MODEL_AREA_SECTORS; i++)
            m->sectors[a * MODEL_AREA_SECTORS + i] = (struct model_sector){.values = {m->value(m->areas[a] + i)}, .n = 1};
    for (unsigned i = 0; i < MODEL_OPS; i++)
        m->ops[i] = (struct model_op){.model = m, .is_free = true, .bytes = malloc(MODEL_AREA_SECTORS * SECTOR)};
}

void model_fini(struct volume_model *m)
{
    for (unsigned i = 0; i < MODEL_OPS; i++)
        free(m->ops[i].bytes);
}

// ---- requests and what they mean ----

static struct model_sector *sectors_of(struct model_op *op)
{
    return &op->model->sectors[op->area * MODEL_AREA_SECTORS + op->first];
}

static void set_values(struct model_op *op, uint64_t at)
{
    for (unsigned i = 0; i < op->n; i++) {
        struct model_sector *s = &sectors_of(op)[i];
        s->at[s->n - 1] = at;
        s->busy = false;
    }
}

static void check_read(struct model_op *op)
{
    const struct volume_model *m = op->model;
    uint8_t wanted[SECTOR];
    for (unsigned i = 0; i < op->n; i++) {
        const struct model_sector *s = &sectors_of(op)[i];
        model_fill(wanted, s->values[s->n - 1]);
        if (!m->forgets || s->values[s->n - 1] != DISCARDED)
            assert_memory_equal(op->bytes + i * SECTOR, wanted, SECTOR);
        sectors_of(op)[i].busy = false;
    }
}

// All that was done when it was started is stable.
static void check_flush(struct model_op *op)
{
    struct volume_model *m = op->model;
    for (unsigned i = 0; i < m->n_areas * MODEL_AREA_SECTORS; i++) {
        struct model_sector *s = &m->sectors[i];
        unsigned last = 0;
        for (unsigned v = 1; v < s->n; v++)
            if (s->at[v] && s->at[v] < op->started_at)
                last = v;
        s->n -= last;
        memmove(s->values, s->values + last, s->n * sizeof(s->values[0]));
        memmove(s->at, s->at + last, s->n * sizeof(s->at[0]));
    }
}

static void make_durable(struct model_op *op)
{
    for (unsigned i = 0; i < op->n; i++) {
        struct model_sector *s = &sectors_of(op)[i];
        s->values[0] = s->values[s->n - 1];
        s->n = 1;
    }
}

static void on_done(struct volume_request *io, int result)
{
    struct model_op *op = (struct model_op *)io;
    struct volume_model *m = op->model;
    assert_int_equal(result, 0);
    m->n_busy--;
    op->is_free = true;
    const uint64_t now = ++m->clock;
    if (io->op == VOLUME_READ)
        check_read(op);
    else if (io->op == VOLUME_FLUSH)
        check_flush(op);
    else if (io->op != VOLUME_ABSORB)
        set_values(op, now);
    if (io->durable)
        make_durable(op);
    free(io->context);
}

void model_submit(struct model_op *op)
{
    struct volume_model *m = op->model;
    op->started_at = ++m->clock;
    op->io.done = on_done;
    op->io.context = aligned_alloc(VOLUME_CONTEXT_ALIGN, m->volume->context_bytes);
    op->is_free = false;
    m->n_busy++;
    volume_start(m->volume, &op->io);
}

// ---- at random ----

static bool claim(struct model_op *op, enum volume_op kind)
{
    struct volume_model *m = op->model;
    op->area = (unsigned)(record_random(&m->random) % m->n_areas);
    op->n = 1 + (unsigned)(record_random(&m->random) % (record_random(&m->random) & 1 ? 8 : 64));
    op->first = (unsigned)(record_random(&m->random) % (MODEL_AREA_SECTORS - op->n + 1));
    if (kind == VOLUME_DISCARD || record_random(&m->random) % 4 == 0) { // whole blocks
        op->first = (op->first + 7) & ~7u;
        op->n = (op->n + 7) & ~7u;
        while ((m->areas[op->area] + op->first) % 8)
            op->first++;
    }
    if (op->first + op->n > MODEL_AREA_SECTORS)
        return false;
    for (unsigned i = 0; i < op->n; i++)
        if (sectors_of(op)[i].busy || sectors_of(op)[i].n == MODEL_VALUES)
            return false;
    for (unsigned i = 0; i < op->n; i++)
        sectors_of(op)[i].busy = true;
    return true;
}

static void prepare_change(struct model_op *op)
{
    struct volume_model *m = op->model;
    for (unsigned i = 0; i < op->n; i++) {
        struct model_sector *s = &sectors_of(op)[i];
        s->values[s->n] = op->io.op == VOLUME_WRITE ? m->next_value += 200 : op->io.op == VOLUME_DISCARD ? DISCARDED : 0;
        model_fill(op->bytes + i * SECTOR, s->values[s->n]);
        s->at[s->n++] = 0;
    }
    op->io.durable = record_random(&m->random) % 8 == 0;
    op->io.may_unmap = record_random(&m->random) & 1;
}

static void start_one(struct model_op *op)
{
    static const enum volume_op kinds[] = {VOLUME_READ,  VOLUME_READ, VOLUME_WRITE, VOLUME_WRITE,
                                           VOLUME_WRITE, VOLUME_ZERO, VOLUME_ZERO,  VOLUME_DISCARD};
    struct volume_model *m = op->model;
    enum volume_op kind = kinds[record_random(&m->random) % 8];
    if (record_random(&m->random) % 10 == 0)
        kind = VOLUME_FLUSH;
    if (m->other && m->other(op))
        return;
    op->io = (struct volume_request){.op = kind};
    if (kind == VOLUME_FLUSH) {
        model_submit(op);
        return;
    }
    if (!claim(op, kind))
        return;
    op->io.offset_bytes = (m->areas[op->area] + op->first) * SECTOR;
    op->io.len_bytes = op->n * SECTOR;
    const size_t cut = (size_t)(record_random(&m->random) % (op->io.len_bytes + 1));
    op->iov[0] = (struct iovec){op->bytes, cut};
    op->iov[1] = (struct iovec){op->bytes + cut, op->io.len_bytes - cut};
    op->io.data = (struct volume_data){.iov = op->iov, .n_iov = 2};
    if (kind != VOLUME_READ)
        prepare_change(op);
    model_submit(op);
}

void model_act(struct volume_model *m, unsigned steps)
{
    for (unsigned i = 0; i < steps; i++) {
        struct model_op *op = &m->ops[record_random(&m->random) % MODEL_OPS];
        if (op->is_free && record_random(&m->random) & 1)
            start_one(op);
        else
            m->move(m->arg);
    }
}

void model_settle(struct volume_model *m)
{
    while (m->move(m->arg))
        ;
    assert_int_equal(m->n_busy, 0);
}

void model_set_stable(struct volume_model *m)
{
    for (unsigned i = 0; i < m->n_areas * MODEL_AREA_SECTORS; i++) {
        m->sectors[i].values[0] = m->sectors[i].values[m->sectors[i].n - 1];
        m->sectors[i].n = 1;
    }
}

// ---- after a power cut ----

int model_read(struct volume *volume, uint64_t offset_bytes, void *bytes, uint64_t len_bytes)
{
    struct iovec iov = {bytes, len_bytes};
    struct volume_request q = {
        .op = VOLUME_READ, .offset_bytes = offset_bytes, .len_bytes = len_bytes, .data = {.iov = &iov, .n_iov = 1}};
    return volume_run(volume, &q);
}

static bool may_be(const struct model_sector *s, const uint8_t *bytes)
{
    uint8_t wanted[SECTOR];
    for (unsigned v = 0; v < s->n; v++) {
        model_fill(wanted, s->values[v]);
        if (s->values[v] == DISCARDED || !memcmp(wanted, bytes, SECTOR))
            return true;
    }
    return false;
}

void model_check_cut(struct volume_model *m, struct volume *volume)
{
    static uint8_t bytes[MODEL_AREA_SECTORS * SECTOR];
    for (unsigned a = 0; a < m->n_areas; a++) {
        assert_int_equal(model_read(volume, m->areas[a] * SECTOR, bytes, sizeof(bytes)), 0);
        for (unsigned i = 0; i < MODEL_AREA_SECTORS; i++)
            if (!may_be(&m->sectors[a * MODEL_AREA_SECTORS + i], bytes + i * SECTOR))
                fail_msg("after a power cut sector %u of area %u is what it never was", i, a);
    }
}
