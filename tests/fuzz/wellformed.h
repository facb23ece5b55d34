/* Whether octets are a well-formed reply to a packet, as tests/system/wellformed.py has it; what is not aborts. */
static void hold_that(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "not so: %s\n", what);
    abort();
}

/* Go past a name whose pointers all lead back, to the whole of a name of at most 255 octets. */
static void pass_name(cursor *c, bool compressed)
{
    size_t at = c->at, limit = at, size = 1, end = 0;
    for (unsigned length; (length = at < c->in.size ? c->in.at[at] : 0) != 0;) {
        if (length >= 0xC0) {
            hold_that(compressed && at + 1 < c->in.size, "no pointer in the question, none cut off");
            size_t target = (size_t)(length & 0x3F) << 8 | c->in.at[at + 1];
            hold_that(target >= HEADER && target < limit, "pointers lead back");
            end = end ? end : at + 2;
            at = limit = target;
            continue;
        }
        hold_that(length <= 63, "no reserved label type");
        size += 1 + length;
        at += 1 + length;
    }
    hold_that(at < c->in.size && size <= NAME_MAX_OCTETS, "a name ends");
    c->at = end ? end : at + 1;
}

static bool pass_record(cursor *c)
{
    pass_name(c, true);
    unsigned type = take16(c);
    pass(c, 6);
    span rdata = pass(c, take16(c));
    hold_that(!c->cut, "no record is cut off");
    cursor options = {rdata, 0, type != T_OPT};
    while (type == T_OPT && left(&options)) {
        take16(&options);
        pass(&options, take16(&options));
        hold_that(!options.cut, "no option is cut off");
    }
    return type == T_OPT;
}

static void hold_header(span packet, span reply, size_t limit)
{
    hold_that(reply.size >= HEADER && reply.size <= limit, "not short of a header, not beyond the limit");
    hold_that(!memcmp(reply.at, packet.at, 2), "the query's id");
    hold_that(reply.at[2] & QR && !((reply.at[2] ^ packet.at[2]) & (OPCODE | RD)) && !(reply.at[3] & 0xF0), "flags");
}

static void hold_well_formed(span packet, span reply, size_t limit)
{
    hold_header(packet, reply, limit);
    cursor c = {reply, 4, false};
    unsigned questions = take16(&c), opts = 0, counts[3] = {take16(&c), take16(&c), take16(&c)};
    hold_that(questions <= 1, "one question at most");
    if (questions) {
        pass_name(&c, false);
        pass(&c, 4);
        hold_that(!c.cut && c.at <= packet.size && !memcmp(reply.at + HEADER, packet.at + HEADER, c.at - HEADER), "the question");
    }
    for (int section = 0; section < 3; section++)
        for (unsigned i = 0; i < counts[section]; i++) {
            bool opt = pass_record(&c);
            hold_that(!opt || section == 2, "OPT in the additional section");
            opts += opt;
        }
    hold_that(opts <= 1 && !left(&c), "one OPT at most, and nothing behind the end");
}
