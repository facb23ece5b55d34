/* What reads and writes, each within its bounds: spans, cursors, sinks; the sections that are answered from; a query. */

enum {
    NODE = 8, TAIL = 13, SLOT = 4, RANKING = 12, RULE = 2, POLICY = 3, ZONE = 5, /* of a row; a rule's answers come on top */
    HEADER = 12, NAME_MAX_OCTETS = 255, LABELS = 128, /* the root's included: each other has at least two octets */
    SPLIT_SLOTS = 4096, POINTER_REACH = 0x3E00, AT_QNAME = 0xC00C,
    UDP_PAYLOAD = 1232, UDP_PLAIN = 512, LARGEST = 65535, COOKIE_SECRET = 16, NSID_MAX = 512, GROWTH = 32,
    RECORD_FIXED = 10, OPT_FIXED = 1 + RECORD_FIXED, /* of a record, what is between its owner and its content */
};
enum { QR = 0x80, AA = 0x04, TC = 0x02, RD = 0x01, OPCODE = 0x78, DO = 0x80 };
enum { IN = 1, CH = 3, ANY_CLASS = 255 };
enum { T_TXT = 16, T_OPT = 41, T_DS = 43, T_NXNAME = 128, T_TSIG = 250, T_IXFR = 251, T_AXFR, T_MAILB, T_MAILA, T_ANY };
enum { NSID = 3, SUBNET = 8, COOKIE = 10, KEEPALIVE = 11, EXTENDED_ERROR = 15 };
enum { NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, NOTAUTH = 9, BADVERS = 16, BADKEY, BADCOOKIE = 23, LOOK_UP = -1 };
enum { PROHIBITED = 18, NOT_AUTHORITATIVE = 20, NOT_SUPPORTED = 21, INVALID_QUERY_TYPE = 30, NO_ERROR = -1 };
enum { SILENCE = 0, HAND_BACK = -1 };
enum { MARKS_EACH = 4 }; /* of a reply */
static const uint32_t NONE = 0xFFFFFFFFu, BIT31 = 0x80000000u;

/* ---- spans, cursors, sinks ----------------------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *at;
    size_t size;
} span;

/* Numbers within octets that are known to be there. */
static inline unsigned get16(const uint8_t *at) { return (unsigned)at[0] << 8 | at[1]; }

static inline void set16(uint8_t *at, unsigned value) { at[0] = (uint8_t)(value >> 8), at[1] = (uint8_t)value; }

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
    return octets.size ? get16(octets.at) : 0;
}

typedef struct {
    uint8_t *at;
    size_t size, room;
    bool full;
} sink;

/* The next octets, to be written to; NULL where there is no room for them. */
static inline uint8_t *claim(sink *out, size_t octets)
{
    if (octets > out->room - out->size) {
        out->full = true;
        return NULL;
    }
    out->size += octets;
    return out->at + out->size - octets;
}

static inline void put(sink *out, span from)
{
    uint8_t *at = claim(out, from.size);
    if (at)
        memcpy(at, from.at, from.size);
}

static inline void put8(sink *out, unsigned value)
{
    uint8_t *at = claim(out, 1);
    if (at)
        at[0] = (uint8_t)value;
}

static inline void put16(sink *out, unsigned value)
{
    uint8_t *at = claim(out, 2);
    if (at)
        set16(at, value);
}

/* Move the compression pointer at `at`, already written. */
static void add16(sink *out, size_t at, unsigned more)
{
    if (out->size < 2 || at > out->size - 2) {
        out->full = true;
        return;
    }
    set16(out->at + at, get16(out->at + at) + more);
}

/* ---- what is answered from ----------------------------------------------------------------------------------------------- */

typedef struct {
    void *at;
    size_t count;
} table;

/* The numbers that go with the sections, in this order. */
typedef struct {
    uint64_t providers, public_atoms, other, v6, tcp, elsewhere_requests, elsewhere_responses, apex_depth, salt;
    uint64_t deepest; /* a zone whose apex has the most labels: where there is one zone, it */
} numbers;

/* The sections of one View, the worker's counters, its ring of samples and its secrets. `network` is by atom, `networks` counts. */
typedef struct {
    table index4, index6, network;
    table hash, node, outcome, tail, pointer, cut, blob, cells, record, slot;
    table column, ranking_of, ranking, split;
    table apex_hash, zone, policy, rule, type_place, secondary, number;
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
    SECTION(apex_hash, 4), SECTION(zone, 4), SECTION(policy, 4), SECTION(rule, 4), SECTION(type_place, 1), SECTION(secondary, 1),
    SECTION(number, 8), SECTION(nsid, 1), SECTION(node_text, 1), SECTION(version_text, 1), SECTION(cookies, 1),
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

/* What is read of a packet and of whom, and what is known of the answer. `subnet` is the option's content, empty without one.
 * From `said` to `name_size` all begins as zero; what stands behind that is set before it is read, and `name` last. */
typedef struct {
    const world *w;
    span packet, client;
    double now;
    int state;
    bool tcp;
    plan said;
    bool broken; /* a section is not of the form that it should have; hand back */
    bool edns, dnssec_ok, nsid, keepalive;
    unsigned payload, version, type, klass;
    span subnet, cookie;
    span signer, signed_at, id; /* of a TSIG record: its owner, empty without one; the algorithm up to the fudge; the original ID */
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
    uint8_t name[NAME_MAX_OCTETS];     /* folded */
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

enum { PREFIX = 18 }; /* octets of a row: family, length, address */

static bool lies_in(span client, const table *prefixes)
{
    const uint8_t *row = prefixes->at;
    for (size_t i = 0; i + PREFIX <= prefixes->count; i += PREFIX) {
        unsigned length = row[i + 1], octets = length / 8;
        const uint8_t *address = row + i + 2;
        if (row[i] != (client.size == 4 ? 4 : 6) || length > client.size * 8 || memcmp(address, client.at, octets))
            continue;
        if (!(length & 7) || !((address[octets] ^ client.at[octets]) >> (8 - (length & 7))))
            return true;
    }
    return false;
}
