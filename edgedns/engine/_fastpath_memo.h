/* Replies that are given again: to a packet that comes once more, octet for octet but for its ID, and from the same address.
 *
 * What is said follows from the packet, the client and the world. Cookies follow from the time too: what has one is not kept.
 * A packet is kept when it comes a second time in a row at its place, so that those that come once, made-up names and most
 * client subnets, cost a look at `seen` and drive nothing out. Whoever gives another world begins a new `epoch`.
 */

enum { MEMO = 512, MEMO_ROOM = 207, ID = 2 /* octets */ };

typedef struct {
    uint64_t epoch;
    uint32_t marks[MARKS_EACH], answered; /* `answered` and `rcode` as in a plan */
    uint8_t rcode, marked, asked, said, client_size; /* how many marks, and octets of each */
    uint8_t client[16];
    uint8_t octets[MEMO_ROOM]; /* the packet's, then the reply's, both from behind the ID on */
} kept;
_Static_assert(sizeof(kept) % 64 == 0, "whole lines of the cache");

typedef struct {
    uint64_t epoch;
    uint32_t seen[MEMO]; /* by place: the hash of the packet that came last */
    _Alignas(64) kept kept[MEMO];
} memo;

static span behind_id(span message) { return (span){message.at + ID, message.size - ID}; }

/* Of at least eight octets, and of an address. Whoever makes others meet has them answered anew, no more. */
static uint32_t trace(span octets, span client)
{
    const uint64_t odd = 0x9E3779B97F4A7C15u;
    uint32_t front, back;
    uint64_t next;
    memcpy(&front, client.at, 4);
    memcpy(&back, client.at + client.size - 4, 4);
    uint64_t h = ((uint64_t)front << 32 ^ back ^ octets.size) * odd;
    size_t at = octets.size & 7; /* the first eight, some of them again */
    memcpy(&next, octets.at, 8);
    h = (h ^ next) * odd;
    for (; at < octets.size; at += 8) {
        memcpy(&next, octets.at + at, 8);
        h = (rotated(h, 23) ^ next) * odd;
    }
    return (uint32_t)(h >> 32);
}

/* Where the reply to a packet is kept or to be kept; NULL for one that came once, or of which nothing is kept at all. */
static kept *place_of(memo *m, span packet, span client)
{
    if (packet.size < HEADER || packet.size > MEMO_ROOM || (client.size != 4 && client.size != 16))
        return NULL;
    uint32_t hash = trace(behind_id(packet), client), *seen = &m->seen[hash % MEMO];
    if (*seen == hash)
        return &m->kept[hash % MEMO];
    *seen = hash;
    return NULL;
}

static bool is_kept(const memo *m, const kept *k, span packet, span client)
{
    return k->epoch == m->epoch && same((span){k->octets, k->asked}, behind_id(packet)) &&
           same((span){k->client, k->client_size}, client);
}

static void keep(const memo *m, kept *k, const query *q, span reply, const uint32_t *marks, size_t marked)
{
    span packet = q->packet, client = q->client;
    sink octets = {k->octets, 0, MEMO_ROOM, false}, address = {k->client, 0, sizeof k->client, false};
    put(&octets, behind_id(packet));
    put(&octets, behind_id(reply));
    put(&address, client);
    bool whole = !octets.full && !address.full && marked <= MARKS_EACH;
    k->epoch = m->epoch;
    k->answered = q->said.answered;
    k->rcode = (uint8_t)q->said.rcode;
    k->asked = whole ? (uint8_t)(packet.size - ID) : 0; /* no packet is so short */
    k->said = (uint8_t)(reply.size - ID);
    k->client_size = (uint8_t)client.size;
    k->marked = whole ? (uint8_t)marked : 0;
    memcpy(k->marks, marks, k->marked * sizeof *marks);
}

/* The reply, with the packet's ID. */
static void put_kept(const kept *k, span packet, sink *out)
{
    put(out, (span){packet.at, ID});
    put(out, (span){k->octets + k->asked, k->said});
}
