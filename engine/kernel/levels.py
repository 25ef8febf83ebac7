"""One side of an order book: the volume of each price level, bounded, exact down to its horizon.

Law: behind the horizon nothing is kept; what lay there is counted, and whoever gets there knows no more.

A level is known by its key: the price in ticks, negative on the side of the asks. So the best level of either side has
the highest key, and one piece of code serves both. Near the best, volumes lie in a ring of ticks under two floors of
bits (one for each level, one for each word of those), so that neither setting nor removing one walks over prices; what
lies further away is in a hash table. The ring moves by blocks of ticks, and rarely.
"""

from engine.kernel.layout import I8, Array, Record
from engine.kernel.primitives import cold, highest_bit, hot

BLOCK = 12  # bits of a block of ticks: 64 words of 64 bits
NEAR = 1 << 14  # ticks of the ring
BLOCKS, WORDS = NEAR >> BLOCK, NEAR >> 6
FAR, FAR_LIMIT = 1 << 13, 6000  # places of the hash table; levels that it holds at most
NONE = -(1 << 62)  # the key of no level


class Half(Record):
    """One side of a book."""

    best: I8  # key, NONE = no level
    top: I8  # highest block of the ring; it holds the levels of blocks top - BLOCKS + 1 to top
    horizon: I8  # levels with a key below it are not kept
    far: I8  # levels in the hash table, all below the ring
    dropped: I8  # levels that lay behind the horizon when it came, or came behind it
    sums: Array[int, BLOCKS]
    words: Array[int, WORDS]
    volumes: Array[float, NEAR]
    far_keys: Array[int, FAR]  # 0 = free
    far_volumes: Array[float, FAR]


@hot
def bit_of(place: int) -> int:
    """The word with one bit, 0 to 63: signed, so that plain Python has the same one in a field."""
    return 1 << place if place < 63 else -(1 << 63)


@hot
def put(h: Half, key: int, volume: float) -> None:
    """The volume of a level from now on; 0 removes it."""
    if not h.top - BLOCKS < key >> BLOCK <= h.top:
        put_far(h, key, volume)
        return
    store(h, key, volume)
    if key >= h.best:
        if volume > 0.0:
            h.best = key
        elif key == h.best:
            fall(h)


@hot
def store(h: Half, key: int, volume: float) -> None:
    """The same within the ring, whoever is best."""
    at, bit = (key & (NEAR - 1)) >> 6, bit_of(key & 63)
    before = h.words[at]
    word = before | bit if volume > 0.0 else before & ~bit
    h.volumes[key & (NEAR - 1)] = volume
    h.words[at] = word
    if before == 0 or word == 0:
        ring, bit = at >> 6, bit_of(at & 63)
        h.sums[ring] = h.sums[ring] & ~bit if word == 0 else h.sums[ring] | bit


def volume_at(h: Half, key: int) -> float:
    """The volume of a level, 0 when there is none."""
    volume: float = 0.0
    if h.top - BLOCKS < key >> BLOCK <= h.top:
        volume = h.volumes[key & (NEAR - 1)]
    else:
        at = far_place(h, key)
        if h.far_keys[at] == key:
            volume = h.far_volumes[at]
    return volume


def best_volume(h: Half) -> float:
    """The volume of the best level, 0 when there is none."""
    volume: float = h.volumes[h.best & (NEAR - 1)]
    return volume if h.best != NONE else 0.0


def below(h: Half, key: int) -> int:
    """The key of the best level that is worse than `key`; NONE when there is none."""
    if key > h.best:
        return h.best
    if key >> BLOCK <= h.top - BLOCKS:
        return far_below(h, key)
    bits = h.words[(key & (NEAR - 1)) >> 6] & ((1 << (key & 63)) - 1)
    return (key & -64) + highest_bit(bits) if bits != 0 else below_word(h, key >> 6)


def below_word(h: Half, word: int) -> int:
    """The best level in the words below this one, or in the table."""
    block = word >> 6
    bits = h.sums[block & (BLOCKS - 1)] & ((1 << (word & 63)) - 1)
    while bits == 0:
        block -= 1
        if block <= h.top - BLOCKS:
            return far_below(h, (block + 1) << BLOCK)
        bits = h.sums[block & (BLOCKS - 1)]
    word = (block << 6) + highest_bit(bits)
    return (word << 6) + highest_bit(h.words[word & (WORDS - 1)])


def level(h: Half, k: int) -> int:
    """The key of level k, 0 the best; NONE when there are not so many."""
    key = h.best if k >= 0 else NONE
    while k > 0 and key != NONE:
        key = below(h, key)
        k -= 1
    return key if key >= h.horizon else NONE


@cold
def clear(h: Half) -> None:
    """Remove all levels, and with them the horizon."""
    for ring in range(BLOCKS):
        while h.sums[ring] != 0:
            bit = highest_bit(h.sums[ring])
            at = (ring << 6) + bit
            while h.words[at] != 0:
                place = highest_bit(h.words[at])
                h.volumes[(at << 6) + place] = 0.0
                h.words[at] = h.words[at] & ~bit_of(place)
            h.sums[ring] = h.sums[ring] & ~bit_of(bit)
    if h.far != 0:
        for at in range(FAR):
            h.far_keys[at] = 0
        h.far = 0
    h.best = NONE
    h.horizon = NONE


# The ring moves.


@cold
def fall(h: Half) -> None:
    """The best level is gone. When the new one is low in the ring, the ring goes down to it."""
    h.best = below(h, h.best)
    block = h.best >> BLOCK
    if h.best == NONE or h.top - block < 2:
        return
    h.top = block + 1  # the blocks above are empty, and become those below
    if h.far == 0:
        return
    at = 0
    while at < FAR:
        key = h.far_keys[at]
        if key != 0 and key >> BLOCK > h.top - BLOCKS:
            volume = h.far_volumes[at]
            far_remove(h, at)  # moves another one here, perhaps
            store(h, key, volume)
        else:
            at += 1


@cold
def rise(h: Half, block: int) -> None:
    """A level above the ring: the ring goes up to it, its lowest blocks go into the table."""
    for low in range(h.top - BLOCKS + 1, min(h.top, block - BLOCKS) + 1):
        ring = low & (BLOCKS - 1)
        while h.sums[ring] != 0:
            bit = highest_bit(h.sums[ring])
            at = (ring << 6) + bit
            while h.words[at] != 0:
                place = highest_bit(h.words[at])
                slot = (at << 6) + place
                far_put(h, (((low << 6) + bit) << 6) + place, h.volumes[slot])
                h.volumes[slot] = 0.0
                h.words[at] = h.words[at] & ~bit_of(place)
            h.sums[ring] = h.sums[ring] & ~bit_of(bit)
    h.top = block


@cold
def put_far(h: Half, key: int, volume: float) -> None:
    """The volume of a level outside of the ring."""
    block = key >> BLOCK
    if key < h.best:
        far_put(h, key, volume)
    elif volume > 0.0 and key >= h.horizon:  # better than all; with nothing there the ring may come down as well
        if block > h.top:
            rise(h, block)
        h.top = block
        h.best = key
        store(h, key, volume)


# The hash table: open addressing, the next place after a collision. Removing closes the gap, so that no search breaks.


def far_home(key: int) -> int:
    """Where a key would lie in an empty table."""
    return (key * 3_083_085 >> 10) & (FAR - 1)


def far_place(h: Half, key: int) -> int:
    """Where a key lies, or the free place where it would."""
    at = far_home(key)
    while h.far_keys[at] != 0 and h.far_keys[at] != key:
        at = (at + 1) & (FAR - 1)
    return at


def far_put(h: Half, key: int, volume: float) -> None:
    """The volume of a level in the table. One that does not fit raises the horizon."""
    at = far_place(h, key)
    if h.far_keys[at] == key:
        if volume > 0.0:
            h.far_volumes[at] = volume
        else:
            far_remove(h, at)
    elif volume > 0.0:
        if h.far >= FAR_LIMIT and key >= h.horizon:
            raise_horizon(h)
            at = far_place(h, key)
        if key < h.horizon:
            h.dropped += 1
        else:
            h.far_keys[at] = key
            h.far_volumes[at] = volume
            h.far += 1


def far_remove(h: Half, at: int) -> None:
    """Free a place, and move into the gap whoever lies behind it for want of this place."""
    h.far -= 1
    following = (at + 1) & (FAR - 1)
    while h.far_keys[following] != 0:
        key = h.far_keys[following]
        if ((following - far_home(key)) & (FAR - 1)) >= ((following - at) & (FAR - 1)):
            h.far_keys[at] = key
            h.far_volumes[at] = h.far_volumes[following]
            at = following
        following = (following + 1) & (FAR - 1)
    h.far_keys[at] = 0


def far_below(h: Half, key: int) -> int:
    """The best level of the table that is worse than `key`; NONE when there is none."""
    found = NONE
    if h.far != 0:
        for at in range(FAR):
            other = h.far_keys[at]
            if other != 0 and found < other < key:
                found = other
    return found


@cold
def raise_horizon(h: Half) -> None:
    """The table is full: drop the worst half of it, and from now on all that is as bad."""
    low, high = -(1 << 40), far_below(h, 1 << 40)
    while high - low > 1:  # `low` and above are more than half, `high` and above are not
        middle = low + (high - low) // 2
        count = 0
        for at in range(FAR):
            if h.far_keys[at] != 0 and h.far_keys[at] >= middle:
                count += 1
        if 2 * count > FAR_LIMIT:
            low = middle
        else:
            high = middle
    h.horizon = high
    at = 0
    while at < FAR:
        if h.far_keys[at] != 0 and h.far_keys[at] < high:
            far_remove(h, at)
            h.dropped += 1
        else:
            at += 1
