"""The verbs of ctx in C: what signals.py and wishes.py do, step for step, for strategies in other languages.

Not here yet: quote, and what ctx says of the touch (bid, ask, ...); the Market record has the fields.

The test of the C ABI holds both to the same orders, byte for byte; whoever changes one changes the other.
"""

VERBS = r"""/* What ctx says and hears. `instrument` is an index, -1 that of the event; quantities in units. */
static inline Kernel *tandem_kernel(const Ctx *ctx) { return (Kernel *)((char *)ctx + TANDEM_CTX_BYTES); }
#define TANDEM_ROW(type, k, table, i) ((type *)((char *)(k) + (k)->table##_at) + (i))
static inline int64_t tandem_index(const Ctx *ctx, int64_t i) { return i < 0 ? ctx->instrument : i; }
static inline int tandem_exists(const Kernel *k, int64_t i) { return 0 <= i && i < k->instruments; }
static inline double tandem_lot(const Kernel *k, int64_t i) { return TANDEM_ROW(Instrument, k, instruments, i)->lot; }
static inline Position *tandem_row(const Ctx *ctx, int64_t i) {
    Kernel *k = tandem_kernel(ctx);
    return TANDEM_ROW(Position, k, positions, ctx->strategy * k->instruments + i);
}

/* Units held, on their way, average price; last price (0 before the first); account. 0 for no such instrument. */
static inline double tandem_position(const Ctx *ctx, int64_t instrument) {
    Kernel *k = tandem_kernel(ctx);
    int64_t i = tandem_index(ctx, instrument);
    return tandem_exists(k, i) ? (double)tandem_row(ctx, i)->qty * tandem_lot(k, i) : 0.0;
}
static inline double tandem_pending(const Ctx *ctx, int64_t instrument) {
    Kernel *k = tandem_kernel(ctx);
    int64_t i = tandem_index(ctx, instrument);
    double lot = tandem_exists(k, i) ? TANDEM_ROW(Instrument, k, instruments, i)->lot : 0.0;
    return tandem_exists(k, i) ? (double)tandem_row(ctx, i)->pending * lot : 0.0;
}
static inline double tandem_entry_price(const Ctx *ctx, int64_t instrument) {
    int64_t i = tandem_index(ctx, instrument);
    return tandem_exists(tandem_kernel(ctx), i) ? tandem_row(ctx, i)->average : 0.0;
}
static inline double tandem_mark(const Ctx *ctx, int64_t instrument) {
    Kernel *k = tandem_kernel(ctx);
    int64_t i = tandem_index(ctx, instrument);
    return tandem_exists(k, i) ? TANDEM_ROW(Market, k, markets, i)->mark : 0.0;
}
static inline double tandem_cash(const Ctx *ctx) { return tandem_kernel(ctx)->cash; }
static inline double tandem_equity(const Ctx *ctx) { return tandem_kernel(ctx)->cash + tandem_kernel(ctx)->value; }
static inline int64_t tandem_instruments(const Ctx *ctx) { return tandem_kernel(ctx)->instruments; }

/* Stop this strategy here; the engine cancels its orders and reports the fault. */
static inline void tandem_fault(Ctx *ctx) { ctx->fault = TANDEM_FAULT_HANDLER; }

static inline Signal *tandem_queue(Ctx *ctx, int kind, int64_t instrument, double qty, int priority) {
    Kernel *k = tandem_kernel(ctx);
    int64_t row = k->signals;
    Signal *s;
    if (row >= k->signal_cap || !tandem_exists(k, instrument)) {
        ctx->fault = TANDEM_FAULT_QUEUE;
        return NULL;
    }
    k->signals = row + 1;
    s = TANDEM_ROW(Signal, k, signals, row);
    s->kind = (uint8_t)kind;
    s->strategy = (uint16_t)ctx->strategy;
    s->instrument = (uint32_t)instrument;
    s->qty = qty;
    s->priority = (int8_t)priority;
    s->price = 0.0;
    s->stop = 0.0;
    s->order_id = 0;
    s->deadline = 0;
    s->side = 0;
    s->type = TANDEM_MARKET;
    s->tif = TANDEM_GTC;
    s->mask = 0;
    s->life_ms = 0;
    return s;
}

/* A target replaces the one queued for the instrument a moment ago, in place. */
static inline void tandem_queue_target(Ctx *ctx, int kind, int64_t instrument, double qty, int priority) {
    Kernel *k = tandem_kernel(ctx);
    Position *p;
    if (!tandem_exists(k, instrument)) {
        ctx->fault = TANDEM_FAULT_QUEUE;
        return;
    }
    p = tandem_row(ctx, instrument);
    if (p->signal > 0) {
        Signal *s = TANDEM_ROW(Signal, k, signals, p->signal - 1);
        s->kind = (uint8_t)kind;
        s->qty = qty;
        s->priority = (int8_t)priority;
    } else if (tandem_queue(ctx, kind, instrument, qty, priority)) {
        p->signal = k->signals;
    }
}

/* Wish to hold `qty` units, signed; what is already there or on its way asks for nothing. */
static inline void tandem_target(Ctx *ctx, int64_t instrument, double qty) {
    Kernel *k = tandem_kernel(ctx);
    int64_t i = tandem_index(ctx, instrument);
    if (k->signals == 0 && tandem_exists(k, i)) {
        Position *p = tandem_row(ctx, i);
        if (qty == (double)(p->qty + p->pending) * tandem_lot(k, i)) return;
    }
    tandem_queue_target(ctx, TANDEM_SIGNAL_TARGET, i, qty, 0);
}
/* Wish to hold `weight` of the account's equity (0.5 = half, negative = short). */
static inline void tandem_target_weight(Ctx *ctx, int64_t instrument, double weight) {
    tandem_queue_target(ctx, TANDEM_SIGNAL_WEIGHT, tandem_index(ctx, instrument), weight, 0);
}

static inline int64_t tandem_reserve(Kernel *k) {
    for (int64_t n = 0; n < k->order_cap; n++) {
        int64_t counter = k->next_order;
        OpenOrder *o = TANDEM_ROW(OpenOrder, k, open, counter & k->order_mask);
        k->next_order = counter + 1;
        if (o->state == TANDEM_FREE || o->state >= TANDEM_DONE_FILLED) {
            o->state = TANDEM_RESERVED;
            o->id = (int64_t)((uint64_t)k->session << 40) | counter;
            o->asked = 0;
            o->filled = 0;
            return o->id;
        }
    }
    return 0;
}

/* Order `qty` units: market, or limit and/or stop where those prices are above 0. Its id, or 0 when all is full. */
static inline int64_t tandem_order(Ctx *ctx, int64_t instrument, int side, double qty, double limit, double stop,
                                   int tif, int mask, int priority, int64_t life_ms) {
    Signal *s = tandem_queue(ctx, TANDEM_SIGNAL_ORDER, tandem_index(ctx, instrument), qty, priority);
    if (!s) return 0;
    s->side = (int8_t)side;
    s->price = limit;
    s->stop = stop;
    s->tif = (uint8_t)tif;
    s->mask = (uint8_t)(mask & (TANDEM_POST_ONLY | TANDEM_REDUCE_ONLY));
    s->life_ms = (uint32_t)life_ms;
    if (stop > 0.0) s->type = limit > 0.0 ? TANDEM_STOP_LIMIT : TANDEM_STOP;
    else if (limit > 0.0) s->type = TANDEM_LIMIT;
    s->order_id = tandem_reserve(tandem_kernel(ctx));
    return s->order_id;
}
static inline int64_t tandem_buy(Ctx *ctx, int64_t instrument, double qty, double limit) {
    return tandem_order(ctx, instrument, TANDEM_BUY, qty, limit, 0.0, TANDEM_GTC, 0, 0, 0);
}
static inline int64_t tandem_sell(Ctx *ctx, int64_t instrument, double qty, double limit) {
    return tandem_order(ctx, instrument, TANDEM_SELL, qty, limit, 0.0, TANDEM_GTC, 0, 0, 0);
}
static inline void tandem_cancel(Ctx *ctx, int64_t order_id) {
    Signal *s = tandem_queue(ctx, TANDEM_SIGNAL_CANCEL, ctx->instrument, 0.0, 0);
    if (s) s->order_id = order_id;
}
static inline void tandem_cancel_all(Ctx *ctx, int64_t instrument) {
    tandem_queue(ctx, TANDEM_SIGNAL_CANCEL_ALL, tandem_index(ctx, instrument), 0.0, 0);
}
/* Change an open order: its whole quantity, filled part included, and its prices (0 = as it is). */
static inline void tandem_replace(Ctx *ctx, int64_t order_id, double qty, double limit, double stop) {
    Signal *s = tandem_queue(ctx, TANDEM_SIGNAL_REPLACE, ctx->instrument, qty, 0);
    if (s) {
        s->order_id = order_id;
        s->price = limit;
        s->stop = stop;
    }
}
static inline int tandem_is_open(const Ctx *ctx, int64_t order_id) {
    Kernel *k = tandem_kernel(ctx);
    OpenOrder *o = TANDEM_ROW(OpenOrder, k, open, order_id & k->order_mask);
    return o->id == order_id && TANDEM_RESERVED <= o->state && o->state < TANDEM_DONE_FILLED;
}"""
