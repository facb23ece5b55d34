/* What is said without looking a name up, and how a name is looked up. */

static plan refusal(const world *w, int rcode, int error)
{
    return (plan){
        .flags = QR, .rcode = rcode, .error = error, .tail = NONE, .answered = NONE, .network = NONE,
        .requests = (uint32_t)w->n.elsewhere_requests, .responses = (uint32_t)w->n.elsewhere_responses,
    };
}

static bool is_name(const query *q, const char *name, size_t size)
{
    return same((span){q->name, q->name_size}, (span){(const uint8_t *)name, size});
}

/* engine/identity.py */
static plan chaos(const query *q)
{
    static const char id[] = "\2id\6server", hostname[] = "\10hostname\4bind";
    static const char version[] = "\7version\6server", version_bind[] = "\7version\4bind";
    bool node = is_name(q, id, sizeof id) || is_name(q, hostname, sizeof hostname);
    bool known = node || is_name(q, version, sizeof version) || is_name(q, version_bind, sizeof version_bind);
    if (!known || (q->type != T_TXT && q->type != T_ANY))
        return refusal(q->w, REFUSED, NOT_AUTHORITATIVE);
    if (!q->w->node_text.count)
        return refusal(q->w, REFUSED, PROHIBITED);
    plan said = refusal(q->w, NOERROR, NO_ERROR);
    said.chaos = true;
    said.text = whole(node ? &q->w->node_text : &q->w->version_text);
    return said;
}

static span suffix(const query *q, unsigned label)
{
    return (span){q->name + q->label[label], q->name_size - q->label[label]};
}

/* The first label of the longest suffix of at most `most` labels. */
static unsigned first_label(const query *q, uint64_t most) { return q->labels > most ? q->labels - (unsigned)most : 0; }

/* Rows of `zone`: apex's offset in the blob, its octets, requests, responses, depth. */
static bool is_apex(query *q, uint32_t zone, span name)
{
    size_t row = (size_t)zone * ZONE;
    return same(slice(q, &q->w->blob, word(q, &q->w->zone, row), word(q, &q->w->zone, row + 1)), name);
}

static uint32_t find_apex(query *q, span name)
{
    const world *w = q->w;
    if (w->zone.count && is_apex(q, (uint32_t)w->n.deepest, name))
        return (uint32_t)w->n.deepest;
    size_t mask = w->apex_hash.count - 1;
    size_t at = crc32(name, 0) & mask;
    for (size_t tries = 0; tries <= mask; tries++, at = (at + 1) & mask) {
        uint32_t entry = word(q, &w->apex_hash, at);
        if (!entry)
            return NONE;
        if (is_apex(q, entry - 1, name))
            return entry - 1;
    }
    return NONE;
}

/* The deepest zone that holds the name; for DS at an apex the zone above it, if there is one. */
static uint32_t find_zone(query *q)
{
    uint32_t own = NONE;
    for (unsigned at = first_label(q, q->w->n.apex_depth); at <= q->labels; at++) {
        uint32_t zone = find_apex(q, suffix(q, at));
        if (zone == NONE)
            continue;
        if (q->type != T_DS || at)
            return zone;
        own = zone;
    }
    return own;
}

static uint32_t find_node(query *q, uint32_t hash, span name)
{
    const world *w = q->w;
    size_t mask = w->hash.count - 1;
    size_t at = hash & mask;
    for (size_t tries = 0; tries <= mask; tries++, at = (at + 1) & mask) {
        uint32_t entry = word(q, &w->hash, at);
        if (!entry)
            return NONE;
        size_t row = (size_t)(entry - 1) * NODE;
        if (word(q, &w->node, row + 1) != (name.size | q->zone << 16))
            continue;
        if (same(slice(q, &w->blob, word(q, &w->node, row), name.size), name))
            return entry - 1;
    }
    return NONE;
}

static uint32_t outcome_of(query *q)
{
    size_t row = (size_t)q->node * NODE;
    size_t first = word(q, &q->w->node, row + 4), count = word(q, &q->w->node, row + 5);
    for (size_t at = first; at < first + count && !q->broken; at++)
        if (word(q, &q->w->outcome, at * 2) == q->type)
            return word(q, &q->w->outcome, at * 2 + 1);
    return word(q, &q->w->node, row + 7);
}

/* The outcome for the name: its own node's, or what the closest encloser says (RFC 4592). */
static uint32_t find_outcome(query *q)
{
    for (unsigned at = q->first; at <= q->labels; at++) {
        q->node = find_node(q, at == q->first ? q->hash : crc32(suffix(q, at), q->zone), suffix(q, at));
        if (q->node == NONE)
            continue;
        if (at == 0)
            return outcome_of(q);
        uint32_t below = word(q, &q->w->node, (size_t)q->node * NODE + 6);
        if (below == NONE || !(below & BIT31))
            return below;
        q->node = below & ~BIT31;
        return outcome_of(q);
    }
    return NONE;
}
