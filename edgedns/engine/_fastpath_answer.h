/* A packet's answer, from its octets to the reply's: fastpath.reply's twin. */

static uint32_t of_tail(query *q, uint32_t tail, unsigned field) { return word(q, &q->w->tail, (size_t)tail * TAIL + field); }

enum { AT, OCTETS, AN_NS, AR, RCODE_AA, POINTER, POINTERS, TAIL_SLOT, OWNER, FIRST, LENGTH, CUT, CUTS };

static void use_tail(query *q, uint32_t tail)
{
    uint32_t rcode_aa = of_tail(q, tail, RCODE_AA);
    q->said.tail = tail;
    q->said.rcode = (int)(rcode_aa & 0xFF);
    /* RFC 1035 section 6.2: never authoritative to any class */
    q->said.flags = rcode_aa >> 8 && q->klass != ANY_CLASS ? QR | AA : QR;
}

/* Looking a name up and steering take stages, so that a batch can wait for memory together: each asks for what the next reads.
 * First: where the name's node would be told of. */
static void look_for(query *q, uint32_t zone)
{
    q->state = LOOKING;
    q->zone = zone;
    q->first = first_label(q, word(q, &q->w->zone, (size_t)zone * ZONE + 4));
    q->hash = crc32(suffix(q, q->first), zone);
    prefetch(&q->w->hash, q->hash & (q->w->hash.count - 1), 4);
}

/* Second: the node that is told of there, whether it is the one or not. */
static void sight(query *q)
{
    uint32_t entry = word(q, &q->w->hash, q->hash & (q->w->hash.count - 1));
    q->node = entry ? entry - 1 : 0;
    prefetch(&q->w->node, (size_t)q->node * NODE, 4);
}

/* Third: its name, and its outcomes. */
static void approach(query *q)
{
    size_t row = (size_t)q->node * NODE;
    prefetch(&q->w->blob, word(q, &q->w->node, row), 1);
    prefetch(&q->w->outcome, (size_t)word(q, &q->w->node, row + 4) * 2, 4);
}

/* Fourth: the outcome. What has none the reference path must speak of. */
static void find(query *q)
{
    q->outcome = find_outcome(q);
    q->state = q->outcome == NONE ? UNKNOWN : FOUND;
    if (!(q->outcome & BIT31))
        prefetch(&q->w->tail, (size_t)q->outcome * TAIL, 4);
}

/* Fifth: what it says. */
static void settle(query *q)
{
    plan *said = &q->said;
    said->error = NO_ERROR;
    said->answered = said->network = NONE;
    said->requests = word(q, &q->w->zone, (size_t)q->zone * ZONE + 2);
    said->responses = word(q, &q->w->zone, (size_t)q->zone * ZONE + 3);
    q->state = SETTLED;
    if (q->outcome & BIT31) {
        uint32_t nothing = word(q, &q->w->node, (size_t)q->node * NODE + 7);
        use_tail(q, nothing);
        said->tail = NONE;
        said->owner = AT_QNAME;
        aim(q, q->outcome & ~BIT31, nothing);
        return;
    }
    use_tail(q, q->outcome);
    prefetch(&q->w->blob, of_tail(q, q->outcome, AT), 1);
    uint32_t slot = of_tail(q, q->outcome, TAIL_SLOT);
    if (slot == NONE)
        return;
    if (q->subnet.size) { /* RFC 7871 section 7.2.1: only the first link of a chain to a steered name */
        use_tail(q, of_tail(q, q->outcome, FIRST));
        return;
    }
    said->owner = of_tail(q, q->outcome, OWNER);
    if (said->owner != AT_QNAME)
        said->owner += (uint32_t)q->name_size - of_tail(q, q->outcome, LENGTH);
    aim(q, slot, NONE);
}

/* Let packets go through all stages together; each stage is for those of one state. */
static void advance(query *asked, int count)
{
    static const struct {
        int state;
        void (*go)(query *);
    } stages[] = {
        {LOOKING, sight}, {LOOKING, approach}, {LOOKING, find}, {FOUND, settle},
        {STEERED, descend}, {STEERED, locate}, {STEERED, meet},
    };
    for (size_t stage = 0; stage < sizeof stages / sizeof stages[0]; stage++)
        for (int i = 0; i < count; i++)
            if (asked[i].state == stages[stage].state)
                stages[stage].go(&asked[i]);
}

static bool is_transfer(const query *q) { return q->type == T_AXFR || q->type == T_IXFR; }

/* What is said to who asks for a transfer here, if engine/transfer.py has not more to say. */
static void refuse_transfer(query *q, uint32_t zone)
{
    if (zone == NONE || !is_apex(q, zone, (span){q->name, q->name_size})) {
        q->said = refusal(q->w, NOTAUTH, NOT_AUTHORITATIVE);
        return;
    }
    q->said = refusal(q->w, REFUSED, PROHIBITED);
    if (lies_in(q->client, &q->w->secondary))
        q->state = UNKNOWN;
}

/* What is answered whatever the zone holds; false: look the question up. */
static bool by_type(query *q)
{
    if (q->type < T_NXNAME || q->type > T_MAILA)
        return false;
    if (q->type == T_NXNAME)
        q->said = refusal(q->w, FORMERR, INVALID_QUERY_TYPE);
    else if (q->type == T_MAILA || q->type == T_MAILB)
        q->said = refusal(q->w, NOTIMP, NOT_SUPPORTED);
    else
        return false;
    return true;
}

/* What a well-formed question is answered, or that it is to be looked up. */
static void begin_question(query *q)
{
    if (q->klass == CH) {
        q->said = chaos(q);
        return;
    }
    bool ours = q->klass == IN || q->klass == ANY_CLASS;
    uint32_t zone = ours ? find_zone(q) : NONE;
    if (ours && is_transfer(q))
        refuse_transfer(q, zone);
    else if (zone == NONE)
        q->said = refusal(q->w, REFUSED, NOT_AUTHORITATIVE);
    else if (!by_type(q))
        look_for(q, zone);
}

/* What a packet is answered that its form alone settles. */
static void reject(query *q, int rcode)
{
    if (rcode != NOTAUTH)
        q->signer.size = 0;
    if (rcode == NOERROR && q->cookie.size > CLIENT_COOKIE && cookie_worth(q) == BAD)
        rcode = BADCOOKIE; /* RFC 7873 section 5.4 */
    q->said = refusal(q->w, rcode, rcode == NOTIMP ? NOT_SUPPORTED : NO_ERROR);
}

static void put_option(sink *out, unsigned code, span content)
{
    put16(out, code);
    put16(out, (unsigned)content.size);
    put(out, content);
}

/* How large the OPT record's options will be. */
static size_t options_size(const query *q)
{
    return (q->nsid && q->w->nsid.count ? 4 + q->w->nsid.count : 0) + (q->subnet.size ? 4 + q->subnet.size : 0) +
           (q->said.error == NO_ERROR ? 0 : 6) + (q->cookie.size ? 4 + FULL_COOKIE : 0) + (q->keepalive && q->tcp ? 6 : 0);
}

/* How large the TSIG record will be. */
static size_t tsig_size(const query *q) { return q->signer.size ? q->signer.size + RECORD_FIXED + q->signed_at.size + 8 : 0; }

/* RFC 8945 section 5.3.2: unsigned, and that the key is not known. dns/tsig.py */
static void put_tsig(const query *q, sink *out)
{
    put(out, q->signer);
    put16(out, T_TSIG);
    put16(out, ANY_CLASS);
    put16(out, 0);
    put16(out, 0);
    put16(out, (unsigned)q->signed_at.size + 8);
    put(out, q->signed_at);
    put16(out, 0);
    put(out, q->id);
    put16(out, BADKEY);
    put16(out, 0);
}

/* Leave out the extended error, and NSID, of a reply without records that would be GROWTH longer than its query. dns.edns.modest */
static void be_modest(query *q, size_t question)
{
    size_t room = q->packet.size + GROWTH - HEADER - question - OPT_FIXED - tsig_size(q);
    if (options_size(q) > room)
        q->said.error = NO_ERROR;
    if (options_size(q) > room)
        q->nsid = false;
}

/* The OPT record; its options, of that size, in the order of answer.reply_options. */
static void put_opt(query *q, size_t options, sink *out)
{
    const plan *said = &q->said;
    uint8_t *at = claim(out, OPT_FIXED);
    if (!at)
        return;
    at[0] = 0; /* the root */
    set16(at + 1, T_OPT);
    set16(at + 3, UDP_PAYLOAD);
    set16(at + 5, ((unsigned)said->rcode >> 4) << 8);
    set16(at + 7, q->dnssec_ok ? DO << 8 : 0);
    set16(at + 9, (unsigned)options);
    if (!options)
        return;
    if (q->nsid && q->w->nsid.count)
        put_option(out, NSID, whole(&q->w->nsid));
    if (q->subnet.size >= 4) {
        put16(out, SUBNET);
        put16(out, (unsigned)q->subnet.size);
        put16(out, q->subnet.at[1]);
        put16(out, (unsigned)q->subnet.at[2] << 8 | (said->scope & 0xFF));
        put(out, (span){q->subnet.at + 4, q->subnet.size - 4});
    }
    if (said->error != NO_ERROR)
        put_option(out, EXTENDED_ERROR, (span){(const uint8_t[]){0, (uint8_t)said->error}, 2});
    if (q->cookie.size)
        put_cookie(q, out);
    if (q->keepalive && q->tcp)
        put_option(out, KEEPALIVE, (span){(const uint8_t[]){0, 100}, 2});
}

/* A prebuilt tail's first `size` octets, its pointers moved to fit the question's name. */
static void put_tail(query *q, uint32_t tail, size_t size, sink *out)
{
    unsigned delta = (unsigned)q->name_size - of_tail(q, tail, LENGTH);
    size_t start = out->size, first = of_tail(q, tail, POINTER), count = of_tail(q, tail, POINTERS);
    put(out, slice(q, &q->w->blob, of_tail(q, tail, AT), size));
    q->broken |= delta && of_tail(q, tail, OCTETS) > POINTER_REACH;
    for (size_t i = first; delta && i < first + count && !q->broken; i++) {
        size_t place = half(q, &q->w->pointer, i);
        if (place < size) /* those to the whole name are not among them */
            add16(out, start + place, delta);
    }
}

static void put_records(const plan *said, sink *out)
{
    size_t size = said->record_count ? said->records.size / said->record_count : 0;
    for (uint32_t i = 0; size > 2 && i < said->record_count; i++) {
        uint8_t *at = claim(out, size);
        if (!at)
            return;
        memcpy(at, said->records.at + i * size, size);
        set16(at, said->owner);
    }
}

static void put_chaos(const plan *said, sink *out)
{
    put(out, (span){(const uint8_t[]){0xC0, 0x0C, 0, T_TXT, 0, CH, 0, 0, 0, 0}, 10});
    put16(out, (unsigned)said->text.size + 1);
    put8(out, (unsigned)said->text.size);
    put(out, said->text);
}

/* How much of a tail `room` octets can hold: 0 asks for TC, unless the tail is empty. dns.message.fit */
static size_t fit(query *q, size_t size, size_t room, unsigned *additional)
{
    const plan *said = &q->said;
    if (size <= room)
        return size;
    size_t first = said->tail == NONE ? 0 : of_tail(q, said->tail, CUT);
    for (size_t i = said->tail == NONE ? 0 : of_tail(q, said->tail, CUTS); i > 0 && !q->broken; i--) {
        size_t cut = half(q, &q->w->cut, (first + i - 1) * 2);
        if (cut <= room) {
            *additional = half(q, &q->w->cut, (first + i - 1) * 2 + 1);
            return cut;
        }
    }
    return 0;
}

/* How large a reply may be. */
static size_t reply_limit(const query *q)
{
    if (q->tcp)
        return LARGEST;
    if (!q->edns || q->payload < UDP_PLAIN)
        return UDP_PLAIN;
    return q->payload < UDP_PAYLOAD ? q->payload : UDP_PAYLOAD;
}

/* RFC 1035 section 4.1.1 */
static void put_header(const query *q, unsigned flags, const unsigned counts[4], sink *out)
{
    uint8_t *at = claim(out, HEADER);
    if (!at)
        return;
    memcpy(at, q->packet.at, 2);
    set16(at + 2, flags << 8 | ((unsigned)q->said.rcode & 0x0F));
    for (int i = 0; i < 4; i++)
        set16(at + 4 + 2 * i, counts[i]);
}

/* The whole message into `out`. */
static void put_reply(query *q, sink *out)
{
    const plan *said = &q->said;
    span question = {q->packet.at + HEADER, q->packet.at[2] & OPCODE ? 0 : q->end - HEADER};
    size_t tail = said->tail == NONE ? 0 : of_tail(q, said->tail, OCTETS);
    uint32_t an_ns = said->tail == NONE ? 0 : of_tail(q, said->tail, AN_NS);
    unsigned answers = (an_ns & 0xFFFF) + said->record_count + said->chaos, authorities = an_ns >> 16;
    unsigned additionals = said->tail == NONE ? 0 : of_tail(q, said->tail, AR), flags = said->flags;
    size_t size = tail + said->records.size + (said->chaos ? 13 + said->text.size : 0);
    if (!size && q->edns && !q->tcp)
        be_modest(q, question.size);
    size_t options = q->edns ? options_size(q) : 0, limit = reply_limit(q);
    size_t used = HEADER + question.size + (q->edns ? OPT_FIXED + options : 0);
    size_t kept = fit(q, size, limit > used ? limit - used : 0, &additionals);
    if (size && !kept) {
        flags |= TC;
        answers = authorities = additionals = 0;
    }
    if (used + tsig_size(q) > limit)
        q->signer.size = 0;
    additionals += q->edns + (q->signer.size != 0);
    flags |= q->packet.at[2] & (OPCODE | RD);
    put_header(q, flags, (const unsigned[4]){question.size != 0, answers, authorities, additionals}, out);
    put(out, question);
    if (kept && said->tail != NONE)
        put_tail(q, said->tail, kept < tail ? kept : tail, out);
    if (kept == size) {
        put_records(said, out);
        if (said->chaos)
            put_chaos(said, out);
    }
    if (q->edns)
        put_opt(q, options, out);
    if (q->signer.size)
        put_tsig(q, out);
}

/* What a reply counts, as marks for `apply`: a cell's number, or bit 31 and a network's. How many. */
static size_t count(query *q, uint32_t marks[MARKS_EACH])
{
    const plan *said = &q->said;
    size_t place = q->type < q->w->type_place.count ? byte(q, &q->w->type_place, q->type) : q->w->n.other, size = 2;
    place += (q->tcp ? q->w->n.tcp : 0) + (q->client.size == 16 ? q->w->n.v6 : 0);
    marks[0] = said->requests + (uint32_t)place;
    marks[1] = said->responses + (uint32_t)said->rcode;
    if (said->answered != NONE)
        marks[size++] = said->answered;
    for (size_t i = 0; i < size; i++)
        q->broken |= marks[i] >= q->w->counters.count;
    if (said->network != NONE && q->w->networks.count) {
        q->broken |= said->network >= q->w->networks.count;
        marks[size++] = said->network | BIT31;
    }
    return size;
}

static void apply(const world *w, const uint32_t *marks, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (!(marks[i] & BIT31))
            ((uint64_t *)w->counters.at)[marks[i]]++;
        else
            ((uint32_t *)w->networks.at)[marks[i] & ~BIT31]++;
}

/* Read a packet. Of one that its form alone settles no more is known. The rcode that it earns, or LOOK_UP; neither if it is not
 * answered here, by `state`. */
static int take_in(query *q, const world *w, span packet, span client, bool tcp, double now)
{
    memset(&q->said, 0, offsetof(query, labels) - offsetof(query, said));
    q->w = w, q->packet = packet, q->client = client, q->tcp = tcp, q->now = now;
    q->state = client.size == 4 || client.size == 16 ? SETTLED : UNKNOWN;
    if (packet.size < HEADER || packet.at[2] & QR)
        q->state = SILENT_ONE;
    int rcode = q->state == SETTLED ? read_packet(q) : NOERROR;
    if (rcode != LOOK_UP)
        q->subnet.size = q->name_size = 0, q->type = 0;
    return rcode;
}

/* Read a packet, and go on to where memory has to be waited for. */
static void begin(query *q, const world *w, span packet, span client, bool tcp, double now)
{
    int rcode = take_in(q, w, packet, client, tcp, now);
    if (q->state != SETTLED)
        return;
    if (rcode == LOOK_UP)
        begin_question(q);
    else
        reject(q, rcode);
}

/* The size of the reply in `out`, SILENCE or HAND_BACK; only a reply is to be counted, by the marks that are added. */
static long finish(query *q, sink *out, uint32_t *marks, size_t *marked)
{
    if (q->state == SILENT_ONE)
        return SILENCE;
    if (q->state == UNKNOWN || q->broken)
        return HAND_BACK;
    if (q->state == STEERED)
        steer(q);
    put_reply(q, out);
    size_t more = count(q, marks + *marked);
    if (q->broken || out->full)
        return HAND_BACK;
    *marked += more;
    return (long)out->size;
}

/* One packet by itself. */
static long reply_to(query *q, const world *w, span packet, span client, bool tcp, double now, sink *out)
{
    uint32_t marks[MARKS_EACH];
    size_t marked = 0;
    begin(q, w, packet, client, tcp, now);
    advance(q, 1);
    long size = finish(q, out, marks, &marked);
    apply(w, marks, marked);
    return size;
}
