/* Reading a packet: asked.py's twin. */

/* Eight octets in lower-case; no length of a label is a letter. */
static void fold8(uint8_t *to, const uint8_t *from)
{
    const uint64_t each = 0x0101010101010101u;
    uint64_t octets;
    memcpy(&octets, from, 8);
    uint64_t low = octets & each * 0x7F;
    uint64_t upper = (low + each * (0x80 - 'A')) & ~(low + each * (0x7F - 'Z')) & ~octets & each * 0x80;
    octets |= upper >> 2;
    memcpy(to, &octets, 8);
}

/* A name in lower-case. */
static void fold(uint8_t *to, span name)
{
    size_t at = 0;
    for (; at + 8 <= name.size; at += 8)
        fold8(to + at, name.at + at);
    if (at) /* the last eight, some of them again */
        fold8(to + name.size - 8, name.at + name.size - 8);
    for (; at < name.size && name.size < 8; at++)
        to[at] = name.at[at] >= 'A' && name.at[at] <= 'Z' ? name.at[at] | 0x20 : name.at[at];
}

static bool read_name(cursor *c, query *q)
{
    size_t start = c->at, most = left(c) < NAME_MAX_OCTETS ? left(c) : NAME_MAX_OCTETS, size = 0;
    unsigned length = 1;
    for (q->labels = 0; length; q->labels++) {
        if (size >= most || (length = c->in.at[start + size]) > 63)
            return false;
        q->label[q->labels] = (uint8_t)size;
        size += 1 + length;
    }
    q->labels--; /* the root is none */
    span name = pass(c, size);
    if (c->cut || size > NAME_MAX_OCTETS)
        return false;
    q->name_size = size;
    fold(q->name, name);
    return true;
}

static bool read_question(cursor *c, query *q)
{
    if (!read_name(c, q))
        return false;
    span fixed = pass(c, 4);
    if (c->cut)
        return false;
    q->type = get16(fixed.at);
    q->klass = get16(fixed.at + 2);
    return true;
}

/* Go past a record's owner; was it the root, written out? */
static bool pass_owner(cursor *c)
{
    size_t start = c->at;
    unsigned length;
    while ((length = take8(c)) != 0 && length < 0xC0) {
        if (length > 63)
            c->cut = true;
        pass(c, length);
    }
    if (length)
        pass(c, 1);
    return !length && c->at == start + 1;
}

/* RFC 7871 section 6, as dns/edns.py has it. */
static bool subnet_ok(span s)
{
    if (s.size < 4 || s.at[0] || s.at[3])
        return false;
    unsigned family = s.at[1], source = s.at[2];
    if (!family && !source)
        return s.size == 4;
    if (family < 1 || family > 2 || source > (family == 1 ? 32u : 128u) || s.size != 4 + (source + 7) / 8)
        return false;
    return !(source & 7) || !(s.at[s.size - 1] & 0xFF >> (source & 7));
}

/* Of each kind of option the first; false where they earn a FORMERR, and then none counts. */
static bool read_options(query *q, span rdata)
{
    cursor c = {rdata, 0, false};
    span subnet = {0}, cookie = {0};
    bool nsid = false, keepalive = false;
    while (left(&c)) {
        unsigned code = take16(&c), length = take16(&c);
        span content = pass(&c, length);
        if (c.cut)
            return false;
        if (code == SUBNET && !subnet.size) {
            if (!subnet_ok(content))
                return false;
            subnet = content;
        } else if (code == COOKIE && !cookie.size) {
            if (length != CLIENT_COOKIE && (length < 16 || length > 40))
                return false;
            cookie = content;
        }
        nsid |= code == NSID;
        keepalive |= code == KEEPALIVE;
    }
    q->subnet = subnet, q->cookie = cookie, q->nsid = nsid, q->keepalive = keepalive;
    return true;
}

/* Whether a name that was passed means the same in the reply: it is written out, or ends in an end of the question's. */
static bool is_plain(const query *q, span owner)
{
    size_t at = 0;
    while (owner.at[at] && owner.at[at] < 0xC0)
        at += 1 + owner.at[at];
    if (!owner.at[at])
        return owner.size <= NAME_MAX_OCTETS;
    size_t target = get16(owner.at + at) & 0x3FFF;
    for (unsigned i = 0; q->name_size && i <= q->labels; i++)
        if (target == HEADER + (size_t)q->label[i])
            return at + q->name_size - q->label[i] <= NAME_MAX_OCTETS;
    return false;
}

/* A TSIG record, from its class on. dns/tsig.py */
static bool read_tsig(query *q, span owner, const uint8_t *fixed, span rdata)
{
    cursor c = {rdata, 0, false};
    unsigned length = 1;
    while (!c.cut && length) {
        length = take8(&c);
        c.cut |= length > 63;
        pass(&c, length);
    }
    bool good = c.at <= NAME_MAX_OCTETS;
    pass(&c, 8);
    q->signed_at = (span){rdata.at, c.at};
    pass(&c, take16(&c));
    q->id = pass(&c, 2);
    pass(&c, 2);
    pass(&c, take16(&c));
    q->signer = owner;
    return good && !c.cut && !left(&c) && get16(fixed) == ANY_CLASS && !get16(fixed + 2) && !get16(fixed + 4) && is_plain(q, owner);
}

/* One record, of the additional section or of one before it; false where it earns a FORMERR. */
static bool read_record(cursor *c, query *q, bool additional, bool last)
{
    size_t start = c->at;
    bool at_root = pass_owner(c);
    span owner = {c->in.at + start, c->at - start}, fixed = pass(c, RECORD_FIXED);
    if (c->cut)
        return false;
    span rdata = pass(c, get16(fixed.at + 8));
    if (c->cut)
        return false;
    if (get16(fixed.at) == T_TSIG)
        return additional && last && read_tsig(q, owner, fixed.at + 2, rdata);
    if (get16(fixed.at) != T_OPT)
        return true;
    if (!additional || q->edns)
        return false;
    q->edns = true;
    q->payload = get16(fixed.at + 2);
    q->version = fixed.at[5];
    q->dnssec_ok = (fixed.at[6] & DO) != 0;
    return (q->version != 0 || read_options(q, rdata)) && at_root;
}

/* All of the packet. The rcode that its form alone earns, or LOOK_UP. */
static int read_packet(query *q)
{
    cursor c = {q->packet, HEADER, false};
    const uint8_t *counts = q->packet.at + 4; /* `begin` has seen that there is a header */
    unsigned questions = get16(counts), answers = get16(counts + 2), authorities = get16(counts + 4);
    unsigned additionals = get16(counts + 6);
    bool good = questions <= 1, asked = false;
    q->end = HEADER;
    if (good && questions) {
        good = asked = read_question(&c, q);
        if (asked)
            q->end = c.at;
    }
    if (good) {
        bool strange = answers || (authorities && !(asked && q->type == T_IXFR));
        unsigned before = answers + authorities, all = before + additionals;
        for (unsigned i = 0; i < all && !c.cut; i++)
            good &= read_record(&c, q, i >= before, i + 1 == all);
        good = good && !strange && !c.cut && !left(&c) && (asked || (q->edns && (q->cookie.size || q->version)));
    }
    if (q->packet.at[2] & OPCODE)
        return NOTIMP;
    if (!good)
        return FORMERR;
    if (q->version)
        return BADVERS;
    if (q->signer.size)
        return NOTAUTH; /* RFC 8945 section 5.2.1: no key is known */
    return asked ? LOOK_UP : NOERROR;
}
