"""The verbs of ctx in C: what signals.py, wishes.py and levels.py do, step for step, for strategies in other languages.

The test of the C ABI holds both to the same orders, byte for byte; whoever changes one changes the other.
"""

from engine.kernel import levels

VERBS = r"""/* What ctx says and hears. `instrument` is an index, -1 that of the event; quantities in units.
   `priority`: the higher goes first; `life_ms`: the wish is void after so many milliseconds, 0 = never. */
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
/* The best quote, 0 where there is none: tandem_touch(ctx, -1)->bid, ask, bid_volume, ask_volume. */
static inline const Market *tandem_touch(const Ctx *ctx, int64_t instrument) {
    return TANDEM_ROW(Market, tandem_kernel(ctx), markets, tandem_index(ctx, instrument));
}
static inline double tandem_cash(const Ctx *ctx) { return tandem_kernel(ctx)->cash; }
static inline double tandem_equity(const Ctx *ctx) { return tandem_kernel(ctx)->cash + tandem_kernel(ctx)->value; }
static inline int64_t tandem_instruments(const Ctx *ctx) { return tandem_kernel(ctx)->instruments; }

/* Stop this strategy here; the engine cancels its orders and reports the fault. */
static inline void tandem_fault(Ctx *ctx) { ctx->fault = TANDEM_FAULT_HANDLER; }

static inline int64_t tandem_deadline(const Ctx *ctx, int64_t life_ms) {
    const int64_t longest = (int64_t)1 << 42;
    return life_ms > 0 ? ctx->now + (life_ms < longest ? life_ms : longest) * 1000000 : 0;
}
static inline Signal *tandem_queue(Ctx *ctx, int kind, int64_t instrument, double qty, int priority,
                                   int64_t life_ms) {
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
    s->deadline = tandem_deadline(ctx, life_ms);
    s->side = 0;
    s->type = TANDEM_MARKET;
    s->tif = TANDEM_GTC;
    s->mask = 0;
    return s;
}

/* A target replaces the one queued for the instrument a moment ago, in place. */
static inline void tandem_queue_target(Ctx *ctx, int kind, int64_t instrument, double qty, int priority,
                                       int64_t life_ms) {
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
        s->deadline = tandem_deadline(ctx, life_ms);
    } else if (tandem_queue(ctx, kind, instrument, qty, priority, life_ms)) {
        p->signal = k->signals;
    }
}

/* Wish to hold `qty` units, signed; what is already there or on its way asks for nothing. */
static inline void tandem_target(Ctx *ctx, int64_t instrument, double qty, int priority, int64_t life_ms) {
    Kernel *k = tandem_kernel(ctx);
    int64_t i = tandem_index(ctx, instrument);
    if (k->signals == 0 && tandem_exists(k, i)) {
        Position *p = tandem_row(ctx, i);
        if (qty == (double)(p->qty + p->pending) * tandem_lot(k, i)) return;
    }
    tandem_queue_target(ctx, TANDEM_SIGNAL_TARGET, i, qty, priority, life_ms);
}
/* Wish to hold `weight` of the account's equity (0.5 = half, negative = short). */
static inline void tandem_target_weight(Ctx *ctx, int64_t instrument, double weight, int priority, int64_t life_ms) {
    tandem_queue_target(ctx, TANDEM_SIGNAL_WEIGHT, tandem_index(ctx, instrument), weight, priority, life_ms);
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

static inline double tandem_price(double limit, double trail) {
    return trail == 0.0 ? limit : limit == 0.0 ? trail : (double)NAN;
}
/* Order `qty` units: market, limit and/or stop where those prices are above 0, or a stop that trails by `trail`.
   Its id, or 0 when all is full. */
static inline int64_t tandem_order(Ctx *ctx, int64_t instrument, int side, double qty, double limit, double stop,
                                   double trail, int tif, int mask, int priority, int64_t life_ms) {
    Signal *s = tandem_queue(ctx, TANDEM_SIGNAL_ORDER, tandem_index(ctx, instrument), qty, priority, life_ms);
    if (!s) return 0;
    s->side = (int8_t)side;
    s->price = tandem_price(limit, trail);
    s->stop = stop;
    s->tif = (uint8_t)tif;
    s->mask = (uint8_t)(mask & (TANDEM_POST_ONLY | TANDEM_REDUCE_ONLY));
    if (trail != 0.0) s->type = TANDEM_TRAILING;
    else if (stop > 0.0) s->type = limit > 0.0 ? TANDEM_STOP_LIMIT : TANDEM_STOP;
    else if (limit > 0.0) s->type = TANDEM_LIMIT;
    s->order_id = tandem_reserve(tandem_kernel(ctx));
    return s->order_id;
}
static inline int64_t tandem_buy(Ctx *ctx, int64_t instrument, double qty, double limit) {
    return tandem_order(ctx, instrument, TANDEM_BUY, qty, limit, 0.0, 0.0, TANDEM_GTC, 0, 0, 0);
}
static inline int64_t tandem_sell(Ctx *ctx, int64_t instrument, double qty, double limit) {
    return tandem_order(ctx, instrument, TANDEM_SELL, qty, limit, 0.0, 0.0, TANDEM_GTC, 0, 0, 0);
}
static inline void tandem_queue_cancel(Ctx *ctx, int64_t order_id, int64_t instrument, int priority, int64_t life_ms) {
    Signal *s = tandem_queue(ctx, TANDEM_SIGNAL_CANCEL, instrument, 0.0, priority, life_ms);
    if (s) s->order_id = order_id;
}
static inline void tandem_cancel(Ctx *ctx, int64_t order_id, int priority, int64_t life_ms) {
    tandem_queue_cancel(ctx, order_id, ctx->instrument, priority, life_ms);
}
static inline void tandem_cancel_all(Ctx *ctx, int64_t instrument, int priority, int64_t life_ms) {
    tandem_queue(ctx, TANDEM_SIGNAL_CANCEL_ALL, tandem_index(ctx, instrument), 0.0, priority, life_ms);
}
static inline void tandem_queue_replace(Ctx *ctx, int64_t order_id, int64_t instrument, double qty, double limit,
                                        double stop, double trail, int priority, int64_t life_ms) {
    Signal *s = tandem_queue(ctx, TANDEM_SIGNAL_REPLACE, instrument, qty, priority, life_ms);
    if (s) {
        s->order_id = order_id;
        s->price = tandem_price(limit, trail);
        s->stop = stop;
        s->type = trail != 0.0 ? TANDEM_TRAILING : TANDEM_MARKET;
    }
}
/* Change an open order: its whole quantity, filled part included, its prices and its life (0 = as it is). */
static inline void tandem_replace(Ctx *ctx, int64_t order_id, double qty, double limit, double stop, double trail,
                                  int priority, int64_t life_ms) {
    tandem_queue_replace(ctx, order_id, ctx->instrument, qty, limit, stop, trail, priority, life_ms);
}

/* The price on the tick grid that is no worse for us than asked. */
static inline double tandem_to_tick(double price, const Instrument *i, int side) {
    double steps = i->per_one > 0.0 ? price * i->per_one : price / i->tick, near;
    if (!(steps < 4e15)) return price;
    near = floor(steps + 0.5);
    if (fabs(steps - near) >= 1e-6) near = side > 0 ? floor(steps) : ceil(steps);
    return i->per_one > 0.0 ? near / i->per_one : near * i->tick;
}
static inline int64_t tandem_keep(Ctx *ctx, int64_t order_id, int side, double price, double qty, int64_t i,
                                  int priority, int64_t life_ms) {
    Kernel *k = tandem_kernel(ctx);
    OpenOrder *o = TANDEM_ROW(OpenOrder, k, open, order_id & k->order_mask);
    const Instrument *grid = TANDEM_ROW(Instrument, k, instruments, i);
    if (order_id && o->id == order_id && TANDEM_RESERVED <= o->state && o->state < TANDEM_DONE_FILLED) {
        if (o->state != TANDEM_SENT && o->state != TANDEM_WORKING) return order_id;
        if (!(price > 0.0)) tandem_queue_cancel(ctx, order_id, i, priority, 0);
        else if (fabs(tandem_to_tick(price, grid, side) - o->price) > 0.5 * grid->tick)
            tandem_queue_replace(ctx, order_id, i, (double)o->filled * tandem_lot(k, i) + qty, price, 0.0, 0.0,
                                 priority, life_ms);
        return order_id;
    }
    if (!(price > 0.0)) return 0;
    return tandem_order(ctx, i, side, qty, price, 0.0, 0.0, TANDEM_GTC, TANDEM_POST_ONLY, priority, life_ms);
}
/* Keep a resting buy at `bid` and a resting sale at `ask` (0 = none), moving only what changed. */
static inline void tandem_quote(Ctx *ctx, int64_t instrument, double bid, double ask, double qty, int priority,
                                int64_t life_ms) {
    Kernel *k = tandem_kernel(ctx);
    int64_t i = tandem_index(ctx, instrument);
    Desk *d = TANDEM_ROW(Desk, k, desks, ctx->strategy * k->instruments + i);
    if (!tandem_exists(k, i)) {
        ctx->fault = TANDEM_FAULT_QUEUE;
        return;
    }
    d->buy = tandem_keep(ctx, d->buy, TANDEM_BUY, bid, qty, i, priority, life_ms);
    d->sell = tandem_keep(ctx, d->sell, TANDEM_SELL, ask, qty, i, priority, life_ms);
}
static inline int tandem_is_open(const Ctx *ctx, int64_t order_id) {
    Kernel *k = tandem_kernel(ctx);
    OpenOrder *o = TANDEM_ROW(OpenOrder, k, open, order_id & k->order_mask);
    return o->id == order_id && TANDEM_RESERVED <= o->state && o->state < TANDEM_DONE_FILLED;
}

/* The best quote of the instrument of the event, as the fields of Market; 0 where there is none. */
static inline const Market *tandem_market(const Ctx *ctx) {
    Kernel *k = tandem_kernel(ctx);
    return TANDEM_ROW(Market, k, markets, ctx->instrument);
}
static inline double tandem_bid(const Ctx *ctx) { return tandem_market(ctx)->bid; }
static inline double tandem_ask(const Ctx *ctx) { return tandem_market(ctx)->ask; }
static inline double tandem_bid_volume(const Ctx *ctx) { return tandem_market(ctx)->bid_volume; }
static inline double tandem_ask_volume(const Ctx *ctx) { return tandem_market(ctx)->ask_volume; }
static inline double tandem_tick(const Ctx *ctx) {
    return TANDEM_ROW(Instrument, tandem_kernel(ctx), instruments, ctx->instrument)->tick;
}
static inline double tandem_mid(const Ctx *ctx) {
    const Market *m = tandem_market(ctx);
    return m->bid > 0.0 && m->ask > 0.0 ? 0.5 * (m->bid + m->ask) : m->mark;
}
static inline double tandem_spread(const Ctx *ctx) {
    const Market *m = tandem_market(ctx);
    return m->bid > 0.0 && m->ask > 0.0 ? m->ask - m->bid : (double)NAN;
}
static inline double tandem_imbalance(const Ctx *ctx) {
    const Market *m = tandem_market(ctx);
    double total = m->bid_volume + m->ask_volume;
    return total > 0.0 ? (m->bid_volume - m->ask_volume) / total : 0.0;
}
static inline double tandem_microprice(const Ctx *ctx) {
    const Market *m = tandem_market(ctx);
    double total = m->bid_volume + m->ask_volume;
    if (!(total > 0.0 && m->bid > 0.0 && m->ask > 0.0)) return tandem_mid(ctx);
    return (m->bid * m->ask_volume + m->ask * m->bid_volume) / total;
}
static inline int tandem_crossed(const Ctx *ctx) {
    const Market *m = tandem_market(ctx);
    return 0.0 < m->ask && m->ask <= m->bid;
}

/* The book of that instrument: NULL where no depth is told. `side` is TANDEM_BUY for the bids, TANDEM_SELL for asks. */
static inline const Book *tandem_book(const Ctx *ctx) {
    Kernel *k = tandem_kernel(ctx);
    const Book *b = TANDEM_ROW(Book, k, books, ctx->instrument);
    return k->books_at != 0 && b->first >= 0 ? b : NULL;
}
static inline const Half *tandem_half(const Ctx *ctx, int side) {
    return TANDEM_ROW(Half, tandem_kernel(ctx), halves, tandem_book(ctx)->first + (side > 0 ? 0 : 1));
}
static inline int tandem_stale(const Ctx *ctx) { return tandem_book(ctx) && tandem_book(ctx)->stale; }
static inline int tandem_near(const Half *h, int64_t key) {
    return h->top - @BLOCKS < key >> @BLOCK && key >> @BLOCK <= h->top;
}
static inline int tandem_highest(int64_t word) { return 63 - __builtin_clzll((unsigned long long)word); }
static inline double tandem_key_volume(const Half *h, int64_t key) {
    int64_t at = (key * 3083085 >> 10) & (@FAR - 1);
    if (tandem_near(h, key)) return h->volumes[key & (@NEAR - 1)];
    while (h->far_keys[at] != 0 && h->far_keys[at] != key) at = (at + 1) & (@FAR - 1);
    return h->far_keys[at] == key ? h->far_volumes[at] : 0.0;
}
/* Levels are known by keys: the price in ticks, negative for asks. The best one that is worse than `key`. */
static inline int64_t tandem_below(const Half *h, int64_t key) {
    int64_t word = key >> 6, block = key >> @BLOCK, bits, found = TANDEM_NO_LEVEL;
    if (key > h->best) return h->best;
    if (block > h->top - @BLOCKS) {
        bits = h->words[word & (@WORDS - 1)] & (int64_t)((1ULL << (key & 63)) - 1);
        if (bits) return (word * 64) + tandem_highest(bits);
        bits = h->sums[block & (@BLOCKS - 1)] & (int64_t)((1ULL << (word & 63)) - 1);
        while (!bits && --block > h->top - @BLOCKS) bits = h->sums[block & (@BLOCKS - 1)];
        if (bits) {
            word = block * 64 + tandem_highest(bits);
            return word * 64 + tandem_highest(h->words[word & (@WORDS - 1)]);
        }
        key = (block + 1) * (1 << @BLOCK);
    }
    for (int64_t at = 0; h->far && at < @FAR; at++)
        if (h->far_keys[at] && found < h->far_keys[at] && h->far_keys[at] < key) found = h->far_keys[at];
    return found;
}
static inline int64_t tandem_level(const Half *h, int64_t level) {
    int64_t key = level >= 0 ? h->best : TANDEM_NO_LEVEL;
    while (level-- > 0 && key != TANDEM_NO_LEVEL) key = tandem_below(h, key);
    return key >= h->horizon ? key : TANDEM_NO_LEVEL;
}
/* Price and volume of level `level`, 0 the best; 0 when there is no such level. */
static inline double tandem_level_price(const Ctx *ctx, int side, int64_t level) {
    const Book *b = tandem_book(ctx);
    int64_t key = b ? tandem_level(tandem_half(ctx, side), level) : TANDEM_NO_LEVEL;
    if (key == TANDEM_NO_LEVEL) return 0.0;
    return b->per_one > 0.0 ? (double)llabs(key) / b->per_one : (double)llabs(key) * b->tick;
}
static inline double tandem_level_volume(const Ctx *ctx, int side, int64_t level) {
    int64_t key = tandem_book(ctx) ? tandem_level(tandem_half(ctx, side), level) : TANDEM_NO_LEVEL;
    return key == TANDEM_NO_LEVEL ? 0.0 : tandem_key_volume(tandem_half(ctx, side), key);
}
/* Volume at a price; of the best `levels` levels together; (bids - asks) / their sum over these. */
static inline double tandem_volume_at(const Ctx *ctx, int side, double price) {
    const Book *b = tandem_book(ctx);
    double steps = b ? price * b->scale : 0.0;
    int64_t key = 0.5 <= steps && steps < 1e12 ? (int64_t)(steps + 0.5) : 0;
    if (key == 0 || !(fabs(steps - (double)key) <= 1e-6)) return 0.0;
    return tandem_key_volume(tandem_half(ctx, side), side > 0 ? key : -key);
}
static inline double tandem_volume_of(const Ctx *ctx, int side, int64_t levels) {
    const Half *h = tandem_book(ctx) ? tandem_half(ctx, side) : NULL;
    int64_t key = h ? tandem_level(h, 0) : TANDEM_NO_LEVEL;
    double total = 0.0;
    for (; levels > 0 && key != TANDEM_NO_LEVEL; levels--, key = tandem_below(h, key))
        total += tandem_key_volume(h, key);
    return total;
}
static inline double tandem_imbalance_of(const Ctx *ctx, int64_t levels) {
    double bids = tandem_volume_of(ctx, TANDEM_BUY, levels), asks = tandem_volume_of(ctx, TANDEM_SELL, levels);
    return bids + asks > 0.0 ? (bids - asks) / (bids + asks) : 0.0;
}"""
for _name in ("BLOCKS", "BLOCK", "WORDS", "NEAR", "FAR"):
    VERBS = VERBS.replace(f"@{_name}", str(getattr(levels, _name)))
VERBS = f"#define TANDEM_NO_LEVEL (-((int64_t)1 << 62))\n{VERBS}"
