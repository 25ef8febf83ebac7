/* strategies/momentum.py in C: the same orders, byte for byte. */
#include "momentum.h"

/* Mean.update of engine/kernel/indicators/averages.py. */
static double mean_update(Mean *m, double x, int64_t length) {
    double fresh, total;
    int64_t slot;
    if (!isfinite(x)) return m->n > 0 && m->n >= m->length ? m->total / (double)m->length : NAN;
    if (length != m->length || length < 1) {
        m->length = length;
        m->n = 0;
        m->cursor = 0;
        m->total = 0.0;
        m->fresh = 0.0;
    }
    slot = m->cursor;
    fresh = m->fresh + x;
    total = m->total + (x - m->window[slot]);
    m->window[slot] = x;
    m->n += 1;
    slot += 1;
    if (slot == length) {
        slot = 0;
        total = fresh;
        fresh = 0.0;
    }
    m->cursor = slot;
    m->fresh = fresh;
    m->total = total;
    return m->n < length ? NAN : total / (double)length;
}

void on_bar(State *self, const Bar *bar, Ctx *ctx) {
    const int64_t capacity = sizeof self->slow_mean.window / sizeof self->slow_mean.window[0];
    double fast, slow;
    if (self->fast > capacity || self->slow > capacity) {
        tandem_fault(ctx);
        return;
    }
    fast = mean_update(&self->fast_mean, bar->close, self->fast);
    slow = mean_update(&self->slow_mean, bar->close, self->slow);
    if (self->slow_mean.n >= self->slow_mean.length) {
        if (fast > slow) tandem_target(ctx, -1, self->qty);
        else tandem_target(ctx, -1, self->short_ ? -self->qty : 0.0);
    }
}
