/* The native twin of fastpath.py and limit.py, and a loop around recvmmsg and sendmmsg that answers without the GIL.
 *
 * Whatever it says equals the reference path byte for byte and counts the same; where it can't, it hands back. It reads the
 * published sections (docs/snapshot-format.md) and what native.py lays beside them, and owns no state but the loop's.
 *
 * How it stays within bounds: a packet is read through a cursor (`pass`, `take8`, `take16`, `take32`), a section through
 * `byte`, `half`, `word` and `slice`, and octets are written through a sink (`put`, `put8`, `put16`, `add16`). Each checks; one
 * that is asked for too much gives nothing and sets a flag (`cut`, `broken`, `full`) that is looked at before anything is sent.
 *
 * The RFCs' sentences stand in dns/message.py, dns/edns.py, dns/cookie.py and engine/answer.py, beside what this follows.
 */

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Of the sections and signatures; native.py takes no module of another. To be raised when either changes. */
enum { FORM = 4 };

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the published files are little-endian; plain Python answers here"
#endif

enum {
    NODE = 8, TAIL = 13, SLOT = 4, RANKING = 12, RULE = 2, POLICY = 3, ZONE = 5, /* of a row; a rule's answers come on top */
    HEADER = 12, NAME_MAX_OCTETS = 255, LABELS = 128, /* the root's included: each other has at least two octets */
    SPLIT_SLOTS = 4096, POINTER_REACH = 0x3E00, AT_QNAME = 0xC00C,
    UDP_PAYLOAD = 1232, UDP_PLAIN = 512, LARGEST = 65535, COOKIE_SECRET = 16, NSID_MAX = 512, OPT_FIXED = 11, GROWTH = 32,
};
enum { QR = 0x80, AA = 0x04, TC = 0x02, RD = 0x01, OPCODE = 0x78, DO = 0x80 };
enum { IN = 1, CH = 3, ANY_CLASS = 255 };
enum { T_TXT = 16, T_OPT = 41, T_DS = 43, T_NXNAME = 128, T_IXFR = 251, T_AXFR, T_MAILB, T_MAILA, T_ANY };
enum { NSID = 3, SUBNET = 8, COOKIE = 10, KEEPALIVE = 11, EXTENDED_ERROR = 15 };
enum { NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 16, BADCOOKIE = 23, LOOK_UP = -1 };
enum { PROHIBITED = 18, NOT_AUTHORITATIVE = 20, NOT_SUPPORTED = 21, INVALID_QUERY_TYPE = 30, NO_ERROR = -1 };
enum { SILENCE = 0, HAND_BACK = -1 };
enum { MARKS_EACH = 4 }; /* of a reply */
static const uint32_t NONE = 0xFFFFFFFFu, BIT31 = 0x80000000u;

/* ---- spans, cursors, sinks ----------------------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *at;
    size_t size;
} span;

static bool same(span a, span b) { return a.size == b.size && memcmp(a.at, b.at, a.size) == 0; }

/* Reads a packet from front to back; `cut` once something was asked for that isn't there. */
typedef struct {
    span in;
    size_t at;
    bool cut;
} cursor;

static size_t left(const cursor *c) { return c->in.size - c->at; }

static inline span pass(cursor *c, size_t octets)
{
    if (c->cut || octets > left(c)) {
        c->cut = true;
        return (span){c->in.at, 0};
    }
    span passed = {c->in.at + c->at, octets};
    c->at += octets;
    return passed;
}

/* The next octets as a number. */
static inline unsigned take8(cursor *c)
{
    span octet = pass(c, 1);
    return octet.size ? octet.at[0] : 0;
}

static inline unsigned take16(cursor *c)
{
    span octets = pass(c, 2);
    return octets.size ? (unsigned)octets.at[0] << 8 | octets.at[1] : 0;
}

static inline uint32_t take32(cursor *c)
{
    span o = pass(c, 4);
    return o.size ? (uint32_t)o.at[0] << 24 | (uint32_t)o.at[1] << 16 | (uint32_t)o.at[2] << 8 | o.at[3] : 0;
}

typedef struct {
    uint8_t *at;
    size_t size, room;
    bool full;
} sink;

static inline void put(sink *out, span from)
{
    if (from.size > out->room - out->size) {
        out->full = true;
        return;
    }
    memcpy(out->at + out->size, from.at, from.size);
    out->size += from.size;
}

static inline void put8(sink *out, unsigned value)
{
    if (out->size < out->room)
        out->at[out->size++] = (uint8_t)value;
    else
        out->full = true;
}

static inline void put16(sink *out, unsigned value)
{
    if (out->room - out->size < 2) {
        out->full = true;
        return;
    }
    out->at[out->size++] = (uint8_t)(value >> 8);
    out->at[out->size++] = (uint8_t)value;
}

/* Move the compression pointer at `at`, already written. */
static void add16(sink *out, size_t at, unsigned more)
{
    if (out->size < 2 || at > out->size - 2) {
        out->full = true;
        return;
    }
    unsigned value = ((unsigned)out->at[at] << 8 | out->at[at + 1]) + more;
    out->at[at] = (uint8_t)(value >> 8);
    out->at[at + 1] = (uint8_t)value;
}

/* ---- what is answered from ----------------------------------------------------------------------------------------------- */

typedef struct {
    void *at;
    size_t count;
} table;

/* The numbers that go with the sections, in this order. */
typedef struct {
    uint64_t providers, public_atoms, other, v6, tcp, elsewhere_requests, elsewhere_responses, apex_depth, salt;
} numbers;

/* The sections of one View, the worker's counters, its ring of samples and its secrets. `network` is by atom, `networks` counts. */
typedef struct {
    table index4, index6, network;
    table hash, node, outcome, tail, pointer, cut, blob, cells, record, slot;
    table column, ranking_of, ranking, split;
    table apex_hash, zone, policy, rule, type_place, number;
    table nsid, node_text, version_text, cookies;
    table counters, networks, ring, dice;
    numbers n;
} world;

static const struct section {
    const char *name;
    size_t place;
    size_t width;
    bool writable;
} SECTIONS[] = {
#define SECTION(name, width) {#name, offsetof(world, name), width, false}
    SECTION(index4, 4), SECTION(index6, 4), SECTION(network, 4), SECTION(hash, 4), SECTION(node, 4), SECTION(outcome, 4),
    SECTION(tail, 4), SECTION(pointer, 2), SECTION(cut, 2), SECTION(blob, 1), SECTION(cells, 4), SECTION(record, 4),
    SECTION(slot, 4), SECTION(column, 4), SECTION(ranking_of, 2), SECTION(ranking, 2), SECTION(split, 1),
    SECTION(apex_hash, 4), SECTION(zone, 4), SECTION(policy, 4), SECTION(rule, 4), SECTION(type_place, 1), SECTION(number, 8),
    SECTION(nsid, 1), SECTION(node_text, 1), SECTION(version_text, 1), SECTION(cookies, 1),
    {"counters", offsetof(world, counters), 8, true}, {"networks", offsetof(world, networks), 4, true},
    {"ring", offsetof(world, ring), 8, true}, {"dice", offsetof(world, dice), 8, true},
#undef SECTION
};
enum { SECTION_COUNT = sizeof SECTIONS / sizeof SECTIONS[0] };

/* An address as it is looked up: `offset` is the place of its first bit in the form that was asked with. */
typedef struct {
    unsigned family, offset;
    uint8_t octets[16];
} key;

/* What is to be said. */
typedef struct {
    unsigned flags;
    int rcode;
    int error;         /* extended, or NO_ERROR */
    unsigned scope;
    uint32_t tail;     /* number of a prebuilt tail, or NONE */
    span records;      /* a provider's, behind the tail; each is owned by the name at `owner` */
    uint32_t record_count, owner;
    span text;         /* of a CHAOS TXT record */
    bool chaos;
    uint32_t requests, responses;
    uint32_t answered, network; /* counter cell of a steered answer and the network that asked, or NONE */
} plan;

/* How far a packet is: not answered at all; for Python; all is known; its name is looked for; that was found; it is steered. */
enum { SILENT_ONE, UNKNOWN, SETTLED, LOOKING, FOUND, STEERED };

/* What is read of a packet and of whom, and what is known of the answer. `subnet` is the option's content, empty without one. */
typedef struct {
    const world *w;
    span packet, client;
    double now;
    int state;
    plan said;
    bool tcp, broken; /* broken: a section is not of the form that it should have; hand back */
    bool edns, dnssec_ok, nsid, keepalive;
    unsigned payload, version, type, klass;
    span subnet, cookie;
    size_t end; /* of the question, HEADER where there is none */
    size_t name_size;
    unsigned labels;           /* the root not counted */
    uint32_t zone, hash, node, outcome; /* `hash` is of the name from label `first` on: no longer one is in the zone */
    unsigned first;
    uint32_t ttl_family, without; /* of the slot; the tail that says that there is nothing, or NONE */
    uint32_t first_rule, rules;   /* of the slot's policy */
    size_t cells;                 /* where the policy's row of cells begins */
    uint32_t atom, network, column;
    size_t rule; /* row */
    unsigned scope;
    key key;
    uint8_t label[LABELS];         /* where each begins, the root's last */
    uint8_t name[NAME_MAX_OCTETS + 8]; /* folded, in whole words */
} query;

static uint8_t byte(query *q, const table *from, size_t at)
{
    if (at < from->count)
        return ((const uint8_t *)from->at)[at];
    q->broken = true;
    return 0;
}

static uint16_t half(query *q, const table *from, size_t at)
{
    if (at < from->count)
        return ((const uint16_t *)from->at)[at];
    q->broken = true;
    return 0;
}

static uint32_t word(query *q, const table *from, size_t at)
{
    if (at < from->count)
        return ((const uint32_t *)from->at)[at];
    q->broken = true;
    return 0;
}

static span slice(query *q, const table *from, size_t at, size_t size)
{
    if (size <= from->count && at <= from->count - size)
        return (span){(const uint8_t *)from->at + at, size};
    q->broken = true;
    return (span){(const uint8_t *)from->at, 0};
}

static void prefetch(const table *from, size_t at, size_t width)
{
    if (at < from->count)
        __builtin_prefetch((const uint8_t *)from->at + at * width);
}

static span whole(const table *from) { return (span){from->at, from->count}; }

/* ---- CRC-32 and SipHash -------------------------------------------------------------------------------------------------- */

static uint32_t CRC[4][256];

static void make_crc(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++)
            c = c >> 1 ^ (c & 1 ? 0xEDB88320u : 0);
        CRC[0][i] = c;
    }
    for (int k = 1; k < 4; k++)
        for (uint32_t i = 0; i < 256; i++)
            CRC[k][i] = CRC[k - 1][i] >> 8 ^ CRC[0][CRC[k - 1][i] & 0xFF];
}

/* As zlib.crc32(from, start). */
static uint32_t crc32(span from, uint32_t start)
{
    uint32_t c = ~start;
    size_t i = 0;
    for (; i + 4 <= from.size; i += 4) {
        uint32_t next;
        memcpy(&next, from.at + i, 4);
        c ^= next;
        c = CRC[3][c & 0xFF] ^ CRC[2][c >> 8 & 0xFF] ^ CRC[1][c >> 16 & 0xFF] ^ CRC[0][c >> 24];
    }
    for (; i < from.size; i++)
        c = c >> 8 ^ CRC[0][(c ^ from.at[i]) & 0xFF];
    return ~c;
}

static uint64_t rotated(uint64_t x, int bits) { return x << bits | x >> (-bits & 63); }

static void sip_rounds(uint64_t v[4], int count)
{
    while (count-- > 0) {
        v[0] += v[1], v[1] = rotated(v[1], 13) ^ v[0], v[0] = rotated(v[0], 32);
        v[2] += v[3], v[3] = rotated(v[3], 16) ^ v[2];
        v[0] += v[3], v[3] = rotated(v[3], 21) ^ v[0];
        v[2] += v[1], v[1] = rotated(v[1], 17) ^ v[2], v[2] = rotated(v[2], 32);
    }
}

/* SipHash-2-4 of at most 39 octets. */
static uint64_t siphash(span message, const uint8_t *key)
{
    uint8_t padded[40] = {0};
    uint64_t k[2], v[4], next;
    memcpy(k, key, sizeof k);
    v[0] = k[0] ^ 0x736F6D6570736575u, v[1] = k[1] ^ 0x646F72616E646F6Du;
    v[2] = k[0] ^ 0x6C7967656E657261u, v[3] = k[1] ^ 0x7465646279746573u;
    size_t size = message.size < sizeof padded ? message.size : sizeof padded - 1;
    size_t end = size / 8 * 8 + 8;
    memcpy(padded, message.at, size);
    padded[end - 1] = (uint8_t)size;
    for (size_t i = 0; i < end; i += 8) {
        memcpy(&next, padded + i, 8);
        v[3] ^= next;
        sip_rounds(v, 2);
        v[0] ^= next;
    }
    v[2] ^= 0xFF;
    sip_rounds(v, 4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* ---- cookies (dns/cookie.py) --------------------------------------------------------------------------------------------- */

enum { BAD, VALID, FRESH, CLIENT_COOKIE = 8, FULL_COOKIE = 24 };

/* The hash over the first 16 octets of a cookie and the client's address. */
static uint64_t cookie_hash(const query *q, const uint8_t *first16, const uint8_t *secret)
{
    uint8_t message[32];
    size_t address = q->client.size == 4 ? 4 : 16;
    memcpy(message, first16, 16);
    memcpy(message + 16, q->client.at, address);
    return siphash((span){message, 16 + address}, secret);
}

static int cookie_worth(const query *q)
{
    if (q->cookie.size != FULL_COOKIE || q->cookie.at[8] != 1)
        return BAD;
    const uint8_t *given = q->cookie.at;
    uint32_t stamp = (uint32_t)given[12] << 24 | (uint32_t)given[13] << 16 | (uint32_t)given[14] << 8 | given[15];
    int32_t age = (int32_t)((uint32_t)(int64_t)q->now - stamp);
    if (age < -300 || age > 3600)
        return BAD;
    for (size_t at = 0; at + COOKIE_SECRET <= q->w->cookies.count; at += COOKIE_SECRET) {
        uint64_t wanted = cookie_hash(q, given, (const uint8_t *)q->w->cookies.at + at), got;
        memcpy(&got, given + 16, 8);
        if (wanted == got)
            return at == 0 && age <= 1800 ? FRESH : VALID;
    }
    return BAD;
}

/* The content of the reply's COOKIE option: the query's own while it is fresh, else a new one. */
static void put_cookie(const query *q, sink *out)
{
    put16(out, COOKIE);
    put16(out, FULL_COOKIE);
    if (cookie_worth(q) == FRESH) {
        put(out, q->cookie);
        return;
    }
    uint32_t now = (uint32_t)(int64_t)q->now;
    uint8_t made[FULL_COOKIE] = {0};
    memcpy(made, q->cookie.at, CLIENT_COOKIE);
    made[8] = 1;
    made[12] = (uint8_t)(now >> 24), made[13] = (uint8_t)(now >> 16), made[14] = (uint8_t)(now >> 8), made[15] = (uint8_t)now;
    uint64_t hash = cookie_hash(q, made, q->w->cookies.at);
    memcpy(made + 16, &hash, 8);
    put(out, (span){made, sizeof made});
}

/* ---- reading a packet (asked.py) ----------------------------------------------------------------------------------------- */

/* In lower-case, eight octets at once; no length of a label is a letter. */
static void fold(uint8_t *name, size_t size)
{
    const uint64_t each = 0x0101010101010101u;
    for (size_t at = 0; at < size; at += 8) {
        uint64_t octets;
        memcpy(&octets, name + at, 8);
        uint64_t low = octets & each * 0x7F;
        uint64_t upper = (low + each * (0x80 - 'A')) & ~(low + each * (0x7F - 'Z')) & ~octets & each * 0x80;
        octets |= upper >> 2;
        memcpy(name + at, &octets, 8);
    }
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
    memcpy(q->name, name.at, size);
    q->name_size = size;
    fold(q->name, size);
    return true;
}

static bool read_question(cursor *c, query *q)
{
    if (!read_name(c, q))
        return false;
    q->type = take16(c);
    q->klass = take16(c);
    return !c->cut;
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

/* One record, of the additional section or of one before it; false where it earns a FORMERR. */
static bool read_record(cursor *c, query *q, bool additional)
{
    bool at_root = pass_owner(c);
    unsigned type = take16(c), payload = take16(c);
    uint32_t ttl = take32(c);
    span rdata = pass(c, take16(c));
    if (c->cut)
        return false;
    if (type != T_OPT)
        return true;
    if (!additional || q->edns)
        return false;
    q->edns = true;
    q->payload = payload;
    q->version = ttl >> 16 & 0xFF;
    q->dnssec_ok = (ttl >> 8 & DO) != 0;
    return (q->version != 0 || read_options(q, rdata)) && at_root;
}

/* All of the packet. The rcode that its form alone earns, or LOOK_UP. */
static int read_packet(query *q)
{
    cursor c = {q->packet, 4, false};
    unsigned questions = take16(&c), answers = take16(&c), authorities = take16(&c), additionals = take16(&c);
    bool good = questions <= 1, asked = false;
    q->end = HEADER;
    if (good && questions) {
        good = asked = read_question(&c, q);
        if (asked)
            q->end = c.at;
    }
    if (good) {
        bool strange = answers || (authorities && !(asked && q->type == T_IXFR));
        for (unsigned i = 0; i < answers + authorities + additionals && !c.cut; i++)
            good &= read_record(&c, q, i >= answers + authorities);
        good = good && !strange && !c.cut && !left(&c) && (asked || (q->edns && (q->cookie.size || q->version)));
    }
    if (q->packet.at[2] & OPCODE)
        return NOTIMP;
    if (!good)
        return FORMERR;
    if (q->version)
        return BADVERS;
    return asked ? LOOK_UP : NOERROR;
}

/* ---- what is to be said -------------------------------------------------------------------------------------------------- */

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
static uint32_t find_apex(query *q, span name)
{
    const world *w = q->w;
    size_t mask = w->apex_hash.count - 1;
    size_t at = crc32(name, 0) & mask;
    for (size_t tries = 0; tries <= mask; tries++, at = (at + 1) & mask) {
        uint32_t entry = word(q, &w->apex_hash, at);
        if (!entry)
            return NONE;
        size_t row = (size_t)(entry - 1) * ZONE;
        if (same(slice(q, &w->blob, word(q, &w->zone, row), word(q, &w->zone, row + 1)), name))
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

/* ---- steering (fastpath.choose) ------------------------------------------------------------------------------------------ */

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

/* ---- answering ----------------------------------------------------------------------------------------------------------- */

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
    *said = (plan){
        .error = NO_ERROR, .answered = NONE, .network = NONE,
        .requests = word(q, &q->w->zone, (size_t)q->zone * ZONE + 2),
        .responses = word(q, &q->w->zone, (size_t)q->zone * ZONE + 3),
    };
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

/* What is answered whatever the zone holds; false: look the question up. */
static bool by_type(query *q)
{
    if (q->type < T_NXNAME || q->type > T_MAILA)
        return false;
    if (q->type == T_AXFR || q->type == T_IXFR)
        q->said = refusal(q->w, REFUSED, PROHIBITED);
    else if (q->type == T_NXNAME)
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
    uint32_t zone = q->klass == IN || q->klass == ANY_CLASS ? find_zone(q) : NONE;
    if (zone == NONE)
        q->said = refusal(q->w, REFUSED, NOT_AUTHORITATIVE);
    else if (!by_type(q))
        look_for(q, zone);
}

/* What a packet is answered that its form alone settles. */
static void reject(query *q, int rcode)
{
    if (rcode == NOERROR && q->cookie.size > CLIENT_COOKIE && cookie_worth(q) == BAD)
        rcode = BADCOOKIE; /* RFC 7873 section 5.4 */
    q->subnet.size = q->name_size = 0;
    q->type = 0;
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

/* Leave out the extended error, and NSID, of a reply without records that would be GROWTH longer than its query. dns.edns.modest */
static void be_modest(query *q, size_t question)
{
    size_t room = q->packet.size + GROWTH - HEADER - question - OPT_FIXED;
    if (options_size(q) > room)
        q->said.error = NO_ERROR;
    if (options_size(q) > room)
        q->nsid = false;
}

/* The OPT record; its options, of that size, in the order of answer.reply_options. */
static void put_opt(query *q, size_t options, sink *out)
{
    const plan *said = &q->said;
    const uint8_t fixed[OPT_FIXED] = {
        0, 0, T_OPT, UDP_PAYLOAD >> 8, UDP_PAYLOAD & 0xFF, (uint8_t)(said->rcode >> 4), 0, q->dnssec_ok ? DO : 0, 0,
        (uint8_t)(options >> 8), (uint8_t)options,
    };
    put(out, (span){fixed, OPT_FIXED});
    if (!options)
        return;
    if (q->nsid && q->w->nsid.count)
        put_option(out, NSID, whole(&q->w->nsid));
    if (q->subnet.size >= 4) {
        put16(out, SUBNET);
        put16(out, (unsigned)q->subnet.size);
        put(out, (span){(const uint8_t[]){0, q->subnet.at[1], q->subnet.at[2], (uint8_t)said->scope}, 4});
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
        put16(out, said->owner);
        put(out, (span){said->records.at + i * size + 2, size - 2});
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
    additionals += q->edns;
    flags |= q->packet.at[2] & (OPCODE | RD);
    const uint8_t header[HEADER] = {
        q->packet.at[0], q->packet.at[1], (uint8_t)flags, (uint8_t)said->rcode & 0x0F, 0, question.size != 0,
        (uint8_t)(answers >> 8), (uint8_t)answers, (uint8_t)(authorities >> 8), (uint8_t)authorities,
        (uint8_t)(additionals >> 8), (uint8_t)additionals,
    };
    put(out, (span){header, HEADER});
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

/* Read a packet, up to where memory has to be waited for. */
static void begin(query *q, const world *w, span packet, span client, bool tcp, double now)
{
    memset(q, 0, offsetof(query, label));
    q->w = w, q->packet = packet, q->client = client, q->tcp = tcp, q->now = now;
    q->state = client.size == 4 || client.size == 16 ? SETTLED : UNKNOWN;
    if (packet.size < HEADER || packet.at[2] & QR)
        q->state = SILENT_ONE;
    if (q->state != SETTLED)
        return;
    int rcode = read_packet(q);
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

/* ---- the sample (seen.py) ------------------------------------------------------------------------------------------------ */

/* One entry of the ring. `check` is the CRC-32 of what is behind it. */
typedef struct {
    uint32_t check, answered;
    uint64_t number;
    double at;
    uint8_t client[16], subnet[16];
    uint16_t type;
    uint8_t rcode, flags, family, subnet_family, source, name_size;
    uint8_t name[256];
} sample;
_Static_assert(sizeof(sample) == 320, "as seen.BODY has it");
enum { RING_HEAD = 64, RING_LEAST = (RING_HEAD + sizeof(sample)) / 8, PROVEN = 1, OVER_TCP = 2, DICE = 3 };

/* Count one query down: is it in the sample? `dice`: queries until the next one, the generator's state, the mean step. */
static bool is_due(uint64_t dice[DICE])
{
    if (dice[0] > 1) {
        dice[0]--;
        return false;
    }
    uint64_t state = dice[1];
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    dice[1] = state;
    dice[0] = 1 + state % (2 * dice[2] - 1);
    return true;
}

/* Write over the oldest entry. Threads may meet there: then the check fits neither, and both are passed over. */
static void note(const query *q)
{
    const plan *said = &q->said;
    const table *ring = &q->w->ring;
    sample made = {
        .answered = said->answered, .number = __atomic_add_fetch((uint64_t *)ring->at + 1, 1, __ATOMIC_RELAXED), .at = q->now,
        .type = (uint16_t)q->type, .rcode = (uint8_t)said->rcode, .family = q->client.size == 4 ? 4 : 6,
        .flags = (q->tcp || cookie_worth(q) != BAD ? PROVEN : 0) | (q->tcp ? OVER_TCP : 0), .name_size = (uint8_t)q->name_size,
    };
    memcpy(made.client, q->client.at, q->client.size);
    if (forwarded(q)) {
        made.subnet_family = forwarded_address(q, made.subnet) == 4 ? 4 : 6;
        made.source = q->subnet.at[2];
    }
    memcpy(made.name, q->name, q->name_size);
    made.check = crc32((span){(const uint8_t *)&made + sizeof made.check, sizeof made - sizeof made.check}, 0);
    size_t places = (ring->count * 8 - RING_HEAD) / sizeof made;
    memcpy((uint8_t *)ring->at + RING_HEAD + made.number % places * sizeof made, &made, sizeof made);
}

/* ---- response rate limiting (limit.py) ----------------------------------------------------------------------------------- */

enum { SEND, SLIP, DROP };
enum { EXEMPT = 18 }; /* octets of a row: family, length, address */

/* The terms and one table of places. `due` are doubles. */
typedef struct {
    table due, over, exempt;
    uint32_t rate, surplus, slip;
    bool dry_run;
} limiter;

static bool is_exempt(const limiter *l, span client)
{
    const uint8_t *row = l->exempt.at;
    for (size_t i = 0; i + EXEMPT <= l->exempt.count; i += EXEMPT) {
        unsigned length = row[i + 1], octets = length / 8;
        const uint8_t *address = row + i + 2;
        if (row[i] != (client.size == 4 ? 4 : 6) || length > client.size * 8 || memcmp(address, client.at, octets))
            continue;
        if (!(length & 7) || !((address[octets] ^ client.at[octets]) >> (8 - (length & 7))))
            return true;
    }
    return false;
}

/* Whether the query's server cookie was good: the reply gives it back as it came, last of its options. */
static bool has_valid_cookie(span packet, span reply)
{
    static const uint8_t option[4] = {0, COOKIE, 0, FULL_COOKIE};
    if (reply.size < 28 || memcmp(reply.at + reply.size - 28, option, 4) || !(reply.at[10] | reply.at[11]))
        return false;
    for (size_t at = 1; at + FULL_COOKIE <= packet.size; at++)
        if (!memcmp(packet.at + at, reply.at + reply.size - FULL_COOKIE, FULL_COOKIE))
            return true;
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

static int limit(const limiter *l, span packet, span reply, span client, double now)
{
    int64_t surplus = l->surplus ? 2 * (int64_t)reply.size - 3 * (int64_t)packet.size : 0;
    if ((surplus <= 0 && !l->rate) || reply.size < HEADER || has_valid_cookie(packet, reply))
        return SEND;
    uint32_t prefix = crc32((span){client.at, client.size == 4 ? 3 : 7}, 0), over = 0;
    if (surplus > 0)
        over = spend(l, prefix, (double)surplus / (2.0 * l->surplus), now);
    if (l->rate) {
        uint32_t more = spend(l, outcome_place(reply, prefix), 1.0 / l->rate, now);
        over = more ? more : over;
    }
    if (!over || is_exempt(l, client))
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

/* ---- Python objects ------------------------------------------------------------------------------------------------------ */

typedef struct {
    PyObject_HEAD
    world w;
    Py_buffer held[SECTION_COUNT];
    int holds;
} Native;

enum { LIMITER_PARTS = 3 };

typedef struct {
    PyObject_HEAD
    limiter l;
    Py_buffer held[LIMITER_PARTS];
    int holds;
} Limiter;

/* Fill `into` from the buffer of `from`; the caller counts the buffer as held. */
static bool hold(PyObject *from, Py_buffer *held, const char *name, size_t width, bool writable, table *into)
{
    if (PyObject_GetBuffer(from, held, writable ? PyBUF_WRITABLE : PyBUF_SIMPLE) < 0)
        return false;
    if (held->len % (Py_ssize_t)width || (held->len && (uintptr_t)held->buf % width)) {
        PyErr_Format(PyExc_ValueError, "%s: %zd octets at %p are no numbers of %zu octets", name, held->len, held->buf, width);
        PyBuffer_Release(held);
        return false;
    }
    *into = (table){held->buf, (size_t)held->len / width};
    return true;
}

static bool power_of_two(size_t count) { return count && !(count & (count - 1)); }

/* Whether the sections are of sizes that an answer can be made from; what they hold is checked as it is read. */
static bool of_form(const world *w)
{
    return power_of_two(w->hash.count) && power_of_two(w->apex_hash.count) && w->number.count == sizeof(numbers) / 8 &&
           w->cookies.count >= COOKIE_SECRET && w->nsid.count <= NSID_MAX && w->node_text.count <= 255 &&
           w->version_text.count <= 255 && w->network.count >= 2 && w->counters.count < BIT31 && w->networks.count < BIT31 &&
           (!w->ring.count || (w->ring.count >= RING_LEAST && w->dice.count == DICE));
}

static bool hold_sections(Native *self, PyObject *sections)
{
    for (size_t i = 0; i < SECTION_COUNT; i++) {
        const struct section *s = &SECTIONS[i];
        PyObject *from = PyDict_GetItemString(sections, s->name);
        if (!from) {
            PyErr_Format(PyExc_KeyError, "%s", s->name);
            return false;
        }
        bool writable = s->writable && !PyBytes_Check(from); /* b"" stands for counters that are not kept */
        if (!hold(from, &self->held[self->holds], s->name, s->width, writable, (table *)((char *)&self->w + s->place)))
            return false;
        self->holds++;
        if (s->writable && !writable)
            ((table *)((char *)&self->w + s->place))->count = 0;
    }
    if (!of_form(&self->w)) {
        PyErr_SetString(PyExc_ValueError, "sections of a form that this engine does not read");
        return false;
    }
    memcpy(&self->w.n, self->w.number.at, sizeof(numbers));
    return true;
}

static PyObject *native_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *sections;
    if (keywords && PyDict_Size(keywords)) {
        PyErr_SetString(PyExc_TypeError, "Native takes one dict of sections");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O!", &PyDict_Type, &sections))
        return NULL;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Native *self = (Native *)alloc(type, 0);
    if (self && !hold_sections(self, sections))
        Py_CLEAR(self);
    return (PyObject *)self;
}

static void release(PyObject *self, Py_buffer *held, int holds)
{
    PyTypeObject *type = Py_TYPE(self);
    for (int i = 0; i < holds; i++)
        PyBuffer_Release(&held[i]);
    freefunc release_memory = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release_memory(self);
    Py_DECREF(type);
}

static void native_dealloc(PyObject *self) { release(self, ((Native *)self)->held, ((Native *)self)->holds); }

static PyObject *native_reply(PyObject *self, PyObject *args)
{
    Py_buffer packet, client;
    const char *transport;
    double now;
    if (!PyArg_ParseTuple(args, "y*y*sd", &packet, &client, &transport, &now))
        return NULL;
    const world *w = &((Native *)self)->w;
    uint8_t octets[LARGEST];
    sink out = {octets, 0, sizeof octets, false};
    span asked = {packet.buf, (size_t)packet.len}, from = {client.buf, (size_t)client.len};
    query q;
    long size = reply_to(&q, w, asked, from, strcmp(transport, "tcp") == 0, now, &out);
    if (size > 0 && w->ring.count && is_due(w->dice.at))
        note(&q);
    PyBuffer_Release(&packet);
    PyBuffer_Release(&client);
    if (size == HAND_BACK)
        Py_RETURN_NONE;
    return PyBytes_FromStringAndSize((const char *)octets, size);
}

static PyMethodDef native_methods[] = {
    {"reply", native_reply, METH_VARARGS, "reply(packet, client, transport, now): as fastpath.reply"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot native_slots[] = {
    {Py_tp_new, native_new}, {Py_tp_dealloc, native_dealloc}, {Py_tp_methods, native_methods},
    {Py_tp_doc, "Native(sections): one View, the counters and the secrets, to answer from"},
    {0, NULL},
};

static PyType_Spec native_spec = {"edgedns.engine._fastpath.Native", sizeof(Native), 0, Py_TPFLAGS_DEFAULT, native_slots};

static PyObject *limiter_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *part[LIMITER_PARTS];
    unsigned rate, surplus, slip;
    int dry_run;
    (void)keywords;
    if (!PyArg_ParseTuple(args, "IIIpOOO", &rate, &surplus, &slip, &dry_run, &part[0], &part[1], &part[2]))
        return NULL;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Limiter *self = (Limiter *)alloc(type, 0);
    if (!self)
        return NULL;
    limiter *l = &self->l;
    static const char *const names[] = {"due", "over", "exempt"};
    static const size_t widths[] = {8, 4, 1};
    table *const tables[] = {&l->due, &l->over, &l->exempt};
    for (int i = 0; i < LIMITER_PARTS; i++, self->holds++)
        if (!hold(part[i], &self->held[i], names[i], widths[i], i < 2, tables[i]))
            goto bad;
    if (!power_of_two(l->due.count) || l->over.count != l->due.count || l->exempt.count % EXEMPT) {
        PyErr_SetString(PyExc_ValueError, "a limiter's parts are of one size, a power of two");
        goto bad;
    }
    l->rate = rate, l->surplus = surplus, l->slip = slip, l->dry_run = dry_run;
    return (PyObject *)self;
bad:
    Py_DECREF(self);
    return NULL;
}

static void limiter_dealloc(PyObject *self) { release(self, ((Limiter *)self)->held, ((Limiter *)self)->holds); }

static PyObject *limiter_limit(PyObject *self, PyObject *args)
{
    Py_buffer packet, reply, client;
    double now;
    if (!PyArg_ParseTuple(args, "y*y*y*d", &packet, &reply, &client, &now))
        return NULL;
    span asked = {packet.buf, (size_t)packet.len}, said = {reply.buf, (size_t)reply.len};
    span from = {client.buf, (size_t)client.len};
    bool good = from.size == 4 || from.size == 16;
    int verdict = good ? limit(&((Limiter *)self)->l, asked, said, from, now) : SEND;
    PyBuffer_Release(&packet);
    PyBuffer_Release(&reply);
    PyBuffer_Release(&client);
    return PyLong_FromLong(verdict);
}

static PyMethodDef limiter_methods[] = {
    {"limit", limiter_limit, METH_VARARGS, "limit(packet, reply, client, now): as limit.limit"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot limiter_slots[] = {
    {Py_tp_new, limiter_new}, {Py_tp_dealloc, limiter_dealloc}, {Py_tp_methods, limiter_methods},
    {Py_tp_doc, "Limiter(rate, slip, dry_run, tag, left, at, over, exempt): the terms, and a limit.State's own arrays"},
    {0, NULL},
};

static PyType_Spec limiter_spec = {"edgedns.engine._fastpath.Limiter", sizeof(Limiter), 0, Py_TPFLAGS_DEFAULT, limiter_slots};

/* ---- the loop ------------------------------------------------------------------------------------------------------------ */

#ifdef __linux__
#include <errno.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

enum {
    BATCH = 64,
    GROUP = 16,                         /* messages that wait for memory together */
    HANDED_MAX = 16,                    /* of a batch; what is handed back beyond them is not answered */
    LOOK_EVERY = 100,                   /* ms */
    RECEIVE_ROOM = 65535,               /* no datagram is longer */
    RECEIVE_STRIDE = 65536 + 64,        /* strides that spread over the cache's sets */
    REPLY_ROOM = 2112,
    CONTROL_ROOM = 64,
    MARKS = 8192,
};
/* edgedns/metrics.py: the fixed cells. */
enum {
    RECEIVED, REPLIED, SILENT, RAISED, UNSENT, TCP_RECEIVED, TCP_REPLIED, TCP_SILENT, TRUNCATED = 10, RATE_DROPPED = 14, RATE_SLIPPED, HANDED_BACK, SHED, FIXED,
};

typedef struct {
    int fd;
    bool wildcard, stop;
    int error; /* errno of a receive that failed for good */
    Native *native;   /* what answers, NULL: all is handed back */
    limiter *limiter; /* NULL: none */
    double now;
    int64_t look_at; /* ms of CLOCK_MONOTONIC */
    struct mmsghdr in[BATCH], out[BATCH];
    struct iovec in_part[BATCH], out_part[BATCH];
    struct sockaddr_in6 peer[BATCH];
    _Alignas(struct cmsghdr) uint8_t control[BATCH][CONTROL_ROOM];
    uint8_t *received;
    uint8_t reply[BATCH][REPLY_ROOM];
    int ready, taken; /* replies in `out`; messages of `in` whose headers must be set anew */
    int handed[HANDED_MAX], handed_count;
    query asked[GROUP];
    uint32_t marks[MARKS];
    size_t marked;
    uint64_t dice[DICE]; /* its own, from the Native's: no two loops count the same down */
    uint64_t fixed[FIXED];
} loop;

static int64_t milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* How many messages came within LOOK_EVERY. */
static int receive_batch(loop *l)
{
    for (int i = 0; i < l->taken; i++) {
        l->in[i].msg_hdr.msg_namelen = sizeof l->peer[i];
        l->in[i].msg_hdr.msg_controllen = l->wildcard ? CONTROL_ROOM : 0;
    }
    int count = recvmmsg(l->fd, l->in, BATCH, MSG_WAITFORONE, NULL);
    l->taken = count > 0 ? count : 0;
    if (count < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
        l->error = errno;
    return l->taken;
}

static span client_of(const loop *l, int i)
{
    if (l->peer[i].sin6_family == AF_INET6)
        return (span){l->peer[i].sin6_addr.s6_addr, 16};
    return (span){(const uint8_t *)&((const struct sockaddr_in *)&l->peer[i])->sin_addr, 4};
}

/* Let the reply leave from the address that was asked; routing chooses the interface, unless the address is link-local. */
static void turn_control(struct msghdr *message)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        bool v4 = c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO, v6 = c->cmsg_level == IPPROTO_IPV6;
        if (v4 && c->cmsg_len >= CMSG_LEN(sizeof(struct in_pktinfo))) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            info.ipi_ifindex = 0;
            info.ipi_addr.s_addr = 0;
            memcpy(CMSG_DATA(c), &info, sizeof info);
        } else if (v6 && c->cmsg_type == IPV6_PKTINFO && c->cmsg_len >= CMSG_LEN(sizeof(struct in6_pktinfo))) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            if (!IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
                info.ipi6_ifindex = 0;
            memcpy(CMSG_DATA(c), &info, sizeof info);
        }
    }
}

/* The reply to message `i`, after rate limiting; its size, 0 if nothing is sent. */
static size_t limited(loop *l, int i, uint8_t *reply, size_t size)
{
    if (!l->limiter)
        return size;
    span packet = {l->in_part[i].iov_base, l->in[i].msg_len};
    int verdict = limit(l->limiter, packet, (span){reply, size}, client_of(l, i), l->now);
    if (verdict == SEND)
        return size;
    l->fixed[verdict == SLIP ? RATE_SLIPPED : RATE_DROPPED]++;
    if (l->limiter->dry_run)
        return size;
    return verdict == SLIP ? truncate_reply(reply, size) : 0;
}

/* Put the reply to message `i` among those to be sent. */
static void make_ready(loop *l, int i, uint8_t *reply, size_t size)
{
    struct mmsghdr *out = &l->out[l->ready];
    l->out_part[l->ready] = (struct iovec){reply, size};
    out->msg_hdr = l->in[i].msg_hdr;
    out->msg_hdr.msg_iov = &l->out_part[l->ready];
    out->msg_hdr.msg_flags = 0;
    if (l->wildcard)
        turn_control(&out->msg_hdr);
    l->ready++;
}

static void send_ready(loop *l)
{
    for (int sent = 0; sent < l->ready;) {
        int more = sendmmsg(l->fd, l->out + sent, (unsigned)(l->ready - sent), 0);
        if (more < 0 && errno == EINTR)
            continue;
        if (more <= 0) { /* the first of them can't be sent, whatever the reason */
            l->fixed[UNSENT]++;
            sent++;
            continue;
        }
        for (int i = sent; i < sent + more; i++)
            l->fixed[TRUNCATED] += (((const uint8_t *)l->out_part[i].iov_base)[2] & TC) != 0;
        l->fixed[REPLIED] += (uint64_t)more;
        sent += more;
    }
    l->ready = 0;
}

/* Leave message `i` to Python, or to nobody where there are too many. */
static void hand_over(loop *l, int i)
{
    l->fixed[HANDED_BACK]++;
    if (l->handed_count < HANDED_MAX) {
        l->handed[l->handed_count++] = i;
    } else {
        l->fixed[SHED]++;
        l->fixed[SILENT]++;
    }
}

static void answer_one(loop *l, int i, query *q)
{
    uint8_t *octets = l->reply[l->ready];
    sink out = {octets, 0, REPLY_ROOM, false};
    long size = finish(q, &out, l->marks, &l->marked);
    if (size == HAND_BACK) {
        hand_over(l, i);
        return;
    }
    if (size != SILENCE) {
        if (q->w->ring.count && is_due(l->dice))
            note(q);
        size = (long)limited(l, i, octets, (size_t)size);
    }
    if (size)
        make_ready(l, i, octets, (size_t)size);
    else
        l->fixed[SILENT]++;
}

/* Answer messages first..last-1: at most GROUP of them, stage by stage. */
static void answer_group(loop *l, int first, int last)
{
    for (int i = first; i < last && l->native; i++) {
        span packet = {l->in_part[i].iov_base, l->in[i].msg_len};
        begin(&l->asked[i - first], &l->native->w, packet, client_of(l, i), false, l->now);
    }
    if (l->native)
        advance(l->asked, last - first);
    for (int i = first; i < last; i++)
        if (l->native)
            answer_one(l, i, &l->asked[i - first]);
        else
            hand_over(l, i);
}

/* Receive and answer until something needs Python: counts to be kept, packets handed back, a look at what is published. */
static void run(loop *l)
{
    while (!l->stop && !l->error && !l->handed_count && l->marked + MARKS_EACH * BATCH <= MARKS) {
        int count = receive_batch(l);
        if (count && !l->in[count - 1].msg_hdr.msg_namelen) { /* from nobody: the socket was shut down, its queue is empty */
            l->stop = true;
            count--;
        }
        l->fixed[RECEIVED] += (uint64_t)count;
        for (int first = 0; first < count; first += GROUP)
            answer_group(l, first, first + GROUP < count ? first + GROUP : count);
        send_ready(l);
        if (milliseconds() >= l->look_at)
            return;
    }
}

static void keep_counts(loop *l)
{
    if (!l->native)
        return;
    const world *w = &l->native->w;
    apply(w, l->marks, l->marked);
    l->marked = 0;
    for (size_t i = 0; i < FIXED && i < w->counters.count; i++)
        ((uint64_t *)w->counters.at)[i] += l->fixed[i];
    memset(l->fixed, 0, sizeof l->fixed);
}

/* Let `respond(packet, client)` answer what was handed back: octets to send, or None, which it counts itself. */
static bool hand_back(loop *l, PyObject *respond)
{
    for (int k = 0; k < l->handed_count; k++) {
        int i = l->handed[k];
        span client = client_of(l, i);
        PyObject *said = PyObject_CallFunction(respond, "y#y#", l->in_part[i].iov_base, (Py_ssize_t)l->in[i].msg_len,
                                               (const char *)client.at, (Py_ssize_t)client.size);
        if (!said)
            return false;
        char *octets;
        Py_ssize_t size;
        if (said != Py_None) {
            if (PyBytes_AsStringAndSize(said, &octets, &size) < 0 || size < 4) {
                Py_DECREF(said);
                return PyErr_Occurred() ? false : (PyErr_SetString(PyExc_ValueError, "a reply too short"), false);
            }
            size_t kept = size <= REPLY_ROOM ? (size_t)size : 0;
            memcpy(l->reply[0], octets, kept);
            kept = kept ? limited(l, i, l->reply[0], kept) : 0;
            if (kept)
                make_ready(l, i, l->reply[0], kept);
            else
                l->fixed[SILENT]++;
            send_ready(l);
        }
        Py_DECREF(said);
    }
    l->handed_count = 0;
    return true;
}

/* `look()` gives (Native or None, now); what answers from here on. */
static bool look(loop *l, PyObject *look_at, PyTypeObject *native_type)
{
    PyObject *seen = PyObject_CallNoArgs(look_at), *native;
    if (!seen)
        return false;
    bool good = PyArg_ParseTuple(seen, "Od", &native, &l->now);
    if (good && native != Py_None && Py_TYPE(native) != native_type) {
        PyErr_SetString(PyExc_TypeError, "look() gives a Native or None, and the time");
        good = false;
    }
    if (good) {
        PyObject *before = (PyObject *)l->native;
        l->native = native == Py_None ? NULL : (Native *)native;
        Py_XINCREF((PyObject *)l->native);
        Py_XDECREF(before);
        l->look_at = milliseconds() + LOOK_EVERY;
        if (l->native && l->native->w.ring.count && !l->dice[2]) {
            uint64_t *dice = l->native->w.dice.at;
            l->dice[0] = dice[0], l->dice[1] = rotated(dice[1], l->fd & 63), l->dice[2] = dice[2];
        }
    }
    Py_DECREF(seen);
    return good;
}

/* Room for a batch in small pages: memory is taken only as far as long datagrams ever came. */
static uint8_t *make_room(void)
{
    size_t size = (size_t)BATCH * RECEIVE_STRIDE;
    void *room = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED)
        return NULL;
    madvise(room, size, MADV_NOHUGEPAGE);
    return room;
}

static loop *make_loop(int fd, bool wildcard)
{
    loop *l = PyMem_Calloc(1, sizeof *l);
    uint8_t *received = l ? make_room() : NULL;
    if (!received) {
        PyMem_Free(l);
        PyErr_NoMemory();
        return NULL;
    }
    l->fd = fd, l->wildcard = wildcard, l->received = received, l->taken = BATCH;
    for (int i = 0; i < BATCH; i++) {
        l->in_part[i] = (struct iovec){received + (size_t)i * RECEIVE_STRIDE, RECEIVE_ROOM};
        l->in[i].msg_hdr = (struct msghdr){
            .msg_name = &l->peer[i], .msg_iov = &l->in_part[i], .msg_iovlen = 1,
            .msg_control = wildcard ? l->control[i] : NULL,
        };
    }
    return l;
}

static PyObject *serve(PyObject *module, PyObject *args)
{
    int fd, wildcard;
    PyObject *look_at, *respond, *limiting;
    if (!PyArg_ParseTuple(args, "ipOOO", &fd, &wildcard, &look_at, &respond, &limiting))
        return NULL;
    PyTypeObject *native_type = (PyTypeObject *)PyObject_GetAttrString(module, "Native");
    PyTypeObject *limiter_type = (PyTypeObject *)PyObject_GetAttrString(module, "Limiter");
    const struct timeval patience = {0, LOOK_EVERY * 1000};
    loop *l = native_type && limiter_type ? make_loop(fd, wildcard) : NULL;
    bool good = l != NULL;
    if (good && limiting != Py_None && Py_TYPE(limiting) != limiter_type) {
        PyErr_SetString(PyExc_TypeError, "limiting is a Limiter or None");
        good = false;
    }
    if (good && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0)
        good = PyErr_SetFromErrno(PyExc_OSError) != NULL;
    if (good && limiting != Py_None)
        l->limiter = &((Limiter *)limiting)->l;
    while (good && !l->stop) {
        if (milliseconds() >= l->look_at)
            good = look(l, look_at, native_type);
        if (!good)
            break;
        Py_BEGIN_ALLOW_THREADS
        run(l);
        Py_END_ALLOW_THREADS
        good = hand_back(l, respond);
        keep_counts(l);
        if (good && l->error) {
            errno = l->error;
            good = PyErr_SetFromErrno(PyExc_OSError) != NULL;
        }
    }
    if (l) {
        Py_XDECREF((PyObject *)l->native);
        munmap(l->received, (size_t)BATCH * RECEIVE_STRIDE);
        PyMem_Free(l);
    }
    Py_XDECREF((PyObject *)native_type);
    Py_XDECREF((PyObject *)limiter_type);
    if (!good)
        return NULL;
    Py_RETURN_NONE;
}

#include "_fastpath_streams.h"
#endif

/* ---- the module ---------------------------------------------------------------------------------------------------------- */

static PyMethodDef functions[] = {
#ifdef __linux__
    {"serve", serve, METH_VARARGS, "serve(fd, wildcard, look, respond, limiter): answer a UDP socket until it is shut down"},
    {"streams", streams, METH_VARARGS, "streams(epoll, patience, clients, native, now): one round of TCP connections"},
#endif
    {NULL, NULL, 0, NULL},
};

static int add_type(PyObject *module, PyType_Spec *spec, const char *name)
{
    PyObject *type = PyType_FromSpec(spec);
    int failed = type ? PyModule_AddObjectRef(module, name, type) : -1;
    Py_XDECREF(type);
    return failed;
}

static int execute(PyObject *module)
{
    make_crc();
    bool failed = PyModule_AddIntConstant(module, "FORM", FORM) < 0;
    failed = failed || add_type(module, &native_spec, "Native") < 0 || add_type(module, &limiter_spec, "Limiter") < 0;
    return failed ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_fastpath", "The native twin of fastpath.py and limit.py.", 0, functions, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__fastpath(void) { return PyModuleDef_Init(&definition); }
