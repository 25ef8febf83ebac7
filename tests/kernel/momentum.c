/* strategies/momentum.py in C: the same orders, byte for byte. */
#include "momentum.h"

/* Mean.update of engine/kernel/indicators/averages.py. */
static double mean_update(Mean *m, double x, int64_t length) {
    double old, change, part, error, total;
    int64_t slot;
    if (!isfinite(x)) return m->n > 0 && m->n >= m->length ? (m->total + m->error) / (double)m->length : NAN;
    if (length != m->length || length < 1) {
        m->length = length;
        m->n = 0;
        m->cursor = 0;
        m->total = 0.0;
        m->error = 0.0;
    }
    slot = m->cursor;
    old = m->n >= length ? -m->window[slot] : 0.0;
    change = x + old;
    part = change - x;
    error = (x - (change - part)) + (old - part);
    total = m->total + change;
    part = total - m->total;
    error += m->error + ((m->total - (total - part)) + (change - part));
    m->window[slot] = x;
    m->n += 1;
    slot += 1;
    if (slot == length) slot = 0; /* prices never leave the range of a double */
    m->cursor = slot;
    m->error = error;
    m->total = total;
    return m->n < length ? NAN : (total + error) / (double)length;
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
        if (fast > slow) tandem_target(ctx, -1, self->qty, 0, 0);
        else tandem_target(ctx, -1, self->short_ ? -self->qty : 0.0, 0, 0);
    }
}
