/* The sample of the queries: seen.py's twin. */

/* One entry of the ring. `check` is the Adler-32 of what is behind it, up to the end of the name; what follows means nothing. */
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

/* As zlib.adler32, of less than 5,000 octets: by sums alone, where a table would have to be fetched for one entry in so many. */
static uint32_t adler32(span from)
{
    uint32_t a = 1, b = 0;
    for (size_t i = 0; i < from.size; i++) {
        a += from.at[i];
        b += a;
    }
    return b % 65521 << 16 | a % 65521;
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
    size_t used = offsetof(sample, name) + q->name_size, places = (ring->count * 8 - RING_HEAD) / sizeof made;
    made.check = adler32((span){(const uint8_t *)&made + sizeof made.check, used - sizeof made.check});
    memcpy((uint8_t *)ring->at + RING_HEAD + made.number % places * sizeof made, &made, used);
}
