/* Steering: fastpath.choose's twin. */

static key key_of(span address, bool resolver)
{
    static const uint8_t mapped[12] = {[10] = 0xFF, [11] = 0xFF}, nat64[12] = {0x00, 0x64, 0xFF, 0x9B};
    static const uint8_t teredo[4] = {0x20, 0x01, 0x00, 0x00};
    uint8_t full[16] = {0};
    memcpy(full, address.at, address.size < 16 ? address.size : 16);
    key made = {4, 0, {0}};
    if (address.size == 4) {
        memcpy(made.octets, full, 4);
    } else if (!memcmp(full, mapped, 12) || !memcmp(full, nat64, 12)) {
        made.offset = 96;
        memcpy(made.octets, full + 12, 4);
    } else if (full[0] == 0x20 && full[1] == 0x02) {
        made.offset = 16;
        memcpy(made.octets, full + 2, 4);
    } else if (resolver && !memcmp(full, teredo, 4)) {
        made.offset = 96;
        for (int i = 0; i < 4; i++)
            made.octets[i] = full[12 + i] ^ 0xFF;
    } else {
        made.family = 6;
        memcpy(made.octets, full, 16);
    }
    return made;
}

static unsigned bits(const uint8_t octets[16], unsigned at, unsigned count)
{
    unsigned octet = octets[at / 8 & 15];
    if (count == 4)
        return at & 4 ? octet & 15 : octet >> 4;
    return count == 8 ? octet : octet << 8 | octets[(at / 8 + 1) & 15];
}

static uint32_t atom_of(query *q, unsigned family, const uint8_t octets[16])
{
    static const uint8_t steps4[] = {16, 8, 8, 0}, steps6[] = {16, 16, 4, 4, 4, 4, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 0};
    const table *index = family == 4 ? &q->w->index4 : &q->w->index6;
    uint32_t entry = 0;
    unsigned at = 0;
    for (const uint8_t *step = family == 4 ? steps4 : steps6; *step; at += *step++) {
        entry = word(q, index, (size_t)(entry & ~BIT31) + bits(octets, at, *step));
        if (!(entry & BIT31))
            return entry;
    }
    q->broken = true;
    return 0;
}

/* The place of a client's hash unit in a split table (snapshot.unit_slot). */
static size_t unit_place(const query *q, const key *k)
{
    uint64_t h = 0;
    for (int i = 0; i < (k->family == 4 ? 3 : 6); i++)
        h = h << 8 | k->octets[i];
    h ^= q->w->n.salt;
    h = (h ^ h >> 33) * 0xFF51AFD7ED558CCDu;
    h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53u;
    return (size_t)((h ^ h >> 33) & (SPLIT_SLOTS - 1));
}

/* The provider that a ranking (its first half at `row`) gives, and why. */
static unsigned pick(query *q, size_t row, const key *k, unsigned *reason)
{
    const table *ranking = &q->w->ranking;
    unsigned count = half(q, ranking, row + 2), split = half(q, ranking, row + 3);
    if (!split) {
        q->broken |= !count;
        return half(q, ranking, row + 4);
    }
    unsigned target = byte(q, &q->w->split, (size_t)(split - 1) * SPLIT_SLOTS + unit_place(q, k));
    for (unsigned i = 0; i < count && i < RANKING - 4; i++) {
        unsigned each = half(q, ranking, row + 4 + i);
        if ((each & 0xFF) == target && each >> 8)
            *reason = (each >> 8) - 1;
    }
    return target;
}

/* The ranking's row for a network in a column. */
static size_t ranking_row(query *q, uint32_t column, uint32_t network)
{
    uint32_t fixed = word(q, &q->w->column, (size_t)column * 2), offset = word(q, &q->w->column, (size_t)column * 2 + 1);
    return (size_t)(fixed == NONE ? half(q, &q->w->ranking_of, (size_t)offset + network) : fixed) * RANKING;
}

/* Whether the answer goes by the client subnet, and not by the address of who asks. */
static bool forwarded(const query *q) { return q->subnet.size > 2 && q->subnet.at[2] != 0; }

/* The client subnet's address, padded with zeros, into 16 octets that are zero; how many are meant. */
static size_t forwarded_address(const query *q, uint8_t octets[16])
{
    size_t given = q->subnet.size - 4;
    memcpy(octets, q->subnet.at + 4, given < 16 ? given : 16);
    return q->subnet.at[1] == 1 ? 4 : 16;
}

/* Steering, first: the address that decides. */
static void aim(query *q, uint32_t slot, uint32_t without)
{
    uint8_t given[16] = {0};
    span address = q->client;
    if (forwarded(q))
        address = (span){given, forwarded_address(q, given)};
    const table *policies = &q->w->policy;
    size_t policy = (size_t)word(q, &q->w->slot, (size_t)slot * SLOT) * POLICY;
    q->state = STEERED;
    q->ttl_family = word(q, &q->w->slot, (size_t)slot * SLOT + 1);
    q->without = without;
    q->first_rule = word(q, policies, policy);
    q->rules = word(q, policies, policy + 1);
    q->cells = (size_t)word(q, policies, policy + 2) * q->w->network.count;
    q->key = key_of(address, !forwarded(q));
    prefetch(q->key.family == 4 ? &q->w->index4 : &q->w->index6, bits(q->key.octets, 0, 16), 4);
}

/* Second: the first step into the index. */
static void descend(query *q)
{
    const table *index = q->key.family == 4 ? &q->w->index4 : &q->w->index6;
    uint32_t entry = word(q, index, bits(q->key.octets, 0, 16));
    if (entry & BIT31)
        prefetch(index, (size_t)(entry & ~BIT31) + bits(q->key.octets, 16, q->key.family == 4 ? 8 : 16), 4);
}

/* Third: its atom. */
static void locate(query *q)
{
    q->atom = atom_of(q, q->key.family, q->key.octets);
    if (!forwarded(q) && q->atom < q->w->n.public_atoms)
        q->atom += (uint32_t)q->w->n.public_atoms;
    prefetch(&q->w->network, q->atom, 4);
    prefetch(&q->w->cells, q->cells + q->atom, 4);
}

/* Fourth: the atom's rule and network. */
static void meet(query *q)
{
    const world *w = q->w;
    uint32_t cell = word(q, &w->cells, q->cells + q->atom);
    q->broken |= cell >> 8 >= q->rules;
    q->scope = cell & 0xFF;
    q->network = word(q, &w->network, q->atom);
    q->rule = (size_t)(q->first_rule + (cell >> 8)) * (RULE + w->n.providers + 1);
    q->column = word(q, &w->rule, q->rule + (q->ttl_family & 1));
    if (word(q, &w->column, (size_t)q->column * 2) == NONE)
        prefetch(&w->ranking_of, (size_t)word(q, &w->column, (size_t)q->column * 2 + 1) + q->network, 2);
}

/* The scope of the answer, in bits of the address that was forwarded. */
static unsigned scope_of(query *q, bool split)
{
    unsigned scope = q->scope, unit = q->key.family == 4 ? 24 : 48;
    if (!forwarded(q))
        return 0;
    if (split && scope < unit)
        scope = unit;
    if (!q->key.offset)
        return scope;
    if (scope)
        return q->key.offset + scope;
    /* IPv4 as a whole, inside IPv6: the scope of the IPv6 space around it. */
    uint8_t given[16] = {0};
    forwarded_address(q, given);
    return word(q, &q->w->cells, q->cells + atom_of(q, 6, given)) & 0xFF;
}

/* Last: what the rule's ranking for the network gives: records, or nothing, or SERVFAIL. */
static void steer(query *q)
{
    const world *w = q->w;
    plan *said = &q->said;
    uint32_t providers = (uint32_t)w->n.providers;
    size_t ranking = ranking_row(q, q->column, q->network);
    unsigned down = half(q, &w->ranking, ranking), reason = half(q, &w->ranking, ranking + 1), target = providers;
    if (!down) {
        target = pick(q, ranking, &q->key, &reason);
        q->broken |= target >= providers;
        size_t row = ((size_t)q->ttl_family * providers + target) * 3;
        said->record_count = word(q, &w->record, row + 2);
        said->records = slice(q, &w->blob, word(q, &w->record, row), word(q, &w->record, row + 1));
    } else if (down == 1) {
        said->tail = q->without;
        q->broken |= q->without == NONE;
    } else {
        said->tail = NONE;
        said->flags = QR;
        said->rcode = SERVFAIL;
    }
    said->network = q->network;
    said->answered = word(q, &w->rule, q->rule + RULE + target) + reason;
    said->scope = scope_of(q, half(q, &w->ranking, ranking + 3) != 0);
}
