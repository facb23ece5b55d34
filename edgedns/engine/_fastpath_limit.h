/* Response rate limiting: limit.py's twin. */

enum { SEND, SLIP, DROP };

/* The terms and one table of places. `due` are doubles. */
typedef struct {
    table due, over, exempt;
    uint32_t rate, surplus, slip;
    bool dry_run;
} limiter;

/* Whether the query's server cookie was good: the reply gives it, or a new one for it, last of its options. */
static bool has_valid_cookie(span packet, span reply, span client, span secrets, double now)
{
    enum { HEAD = 4, KNOWN = HEAD + CLIENT_COOKIE, OPTION = HEAD + FULL_COOKIE };
    static const uint8_t head[HEAD] = {0, COOKIE, 0, FULL_COOKIE};
    if (reply.size < OPTION || !(reply.at[10] | reply.at[11]) || (reply.at[3] & 0x0F) == NOTAUTH) /* may end in TSIG */
        return false;
    const uint8_t *made = reply.at + reply.size - OPTION;
    if (memcmp(made, head, HEAD))
        return false;
    for (size_t at = 1; at + OPTION <= packet.size; at++)
        if (!memcmp(packet.at + at, made, KNOWN))
            return !memcmp(packet.at + at, made, OPTION) ||
                   worth((span){packet.at + at + HEAD, FULL_COOKIE}, client, secrets, now) != BAD;
    return false;
}

/* Where the question of a reply ends, or its header where it has none; 0 if that is cut off. */
static size_t question_end(span reply)
{
    cursor c = {reply, HEADER, reply.size < HEADER};
    if (c.cut || !reply.at[5])
        return c.cut ? 0 : HEADER;
    unsigned length;
    while ((length = take8(&c)) != 0)
        pass(&c, length);
    pass(&c, 4);
    return c.cut ? 0 : c.at;
}

static uint32_t outcome_place(span reply, uint32_t place)
{
    unsigned rcode = reply.at[3] & 0x0F;
    if (rcode || !(reply.at[6] || reply.at[7]))
        return crc32((span){(const uint8_t[]){(uint8_t)rcode, reply.at[2] & AA}, 2}, place);
    /* To the first zero octet, which all but ends the name, and its type and class. */
    const uint8_t *zero = memchr(reply.at + HEADER, 0, reply.size - HEADER);
    size_t end = zero ? (size_t)(zero - reply.at) + 5 : HEADER + 4;
    end = end < reply.size ? end : reply.size;
    uint8_t folded[NAME_MAX_OCTETS + 4];
    size_t size = end - HEADER < sizeof folded ? end - HEADER : sizeof folded;
    for (size_t i = 0; i < size; i++) {
        uint8_t octet = reply.at[HEADER + i];
        folded[i] = octet >= 'A' && octet <= 'Z' ? octet | 0x20 : octet;
    }
    return crc32((span){folded, size}, place);
}

/* Take `cost` seconds of a place's time: 0, or the number of those that it could not pay. */
static uint32_t spend(const limiter *l, uint32_t place, double cost, double now)
{
    size_t at = place & (l->due.count - 1);
    double *due = (double *)l->due.at + at, paid = (*due > now - 1.0 ? *due : now - 1.0) + cost;
    *due = paid < now + 5.0 ? paid : now + 5.0;
    if (*due - cost / 2 <= now)
        return 0;
    uint32_t *over = (uint32_t *)l->over.at + at;
    if (!++*over)
        ++*over;
    return *over;
}

static int limit(const limiter *l, span packet, span reply, span client, span secrets, double now)
{
    int64_t surplus = l->surplus ? 2 * (int64_t)reply.size - 3 * (int64_t)packet.size : 0;
    if ((surplus <= 0 && !l->rate) || reply.size < HEADER || has_valid_cookie(packet, reply, client, secrets, now))
        return SEND;
    uint32_t prefix = crc32((span){client.at, client.size == 4 ? 3 : 7}, 0), over = 0;
    if (surplus > 0)
        over = spend(l, prefix, (double)surplus / (2.0 * l->surplus), now);
    if (l->rate) {
        uint32_t more = spend(l, outcome_place(reply, prefix), 1.0 / l->rate, now);
        over = more ? more : over;
    }
    if (!over || lies_in(client, &l->exempt))
        return SEND;
    return l->slip && over % l->slip == 0 ? SLIP : DROP;
}

/* Make the reply its question alone, if it has one, with TC set. Its size. */
static size_t truncate_reply(uint8_t *reply, size_t size)
{
    size_t end = question_end((span){reply, size});
    if (!end)
        return size;
    reply[2] |= TC;
    memset(reply + 6, 0, 6);
    return end;
}
