/* CRC-32, SipHash, and server cookies by it: dns/cookie.py's twin. */

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

/* ---- cookies ------------------------------------------------------------------------------------------------------------- */

enum { BAD, VALID, FRESH, CLIENT_COOKIE = 8, FULL_COOKIE = 24 };

/* The hash over the first 16 octets of a cookie and the client's address. */
static uint64_t cookie_hash(const uint8_t *first16, span client, const uint8_t *secret)
{
    uint8_t message[32];
    size_t address = client.size == 4 ? 4 : 16;
    memcpy(message, first16, 16);
    memcpy(message + 16, client.at, address);
    return siphash((span){message, 16 + address}, secret);
}

static int worth(span cookie, span client, span secrets, double now)
{
    if (cookie.size != FULL_COOKIE || cookie.at[8] != 1)
        return BAD;
    const uint8_t *given = cookie.at;
    uint32_t stamp = (uint32_t)given[12] << 24 | (uint32_t)given[13] << 16 | (uint32_t)given[14] << 8 | given[15];
    int32_t age = (int32_t)((uint32_t)(int64_t)now - stamp);
    if (age < -300 || age > 3600)
        return BAD;
    for (size_t at = 0; at + COOKIE_SECRET <= secrets.size; at += COOKIE_SECRET) {
        uint64_t wanted = cookie_hash(given, client, secrets.at + at), got;
        memcpy(&got, given + 16, 8);
        if (wanted == got)
            return at == 0 && age <= 1800 ? FRESH : VALID;
    }
    return BAD;
}

static int cookie_worth(const query *q) { return worth(q->cookie, q->client, whole(&q->w->cookies), q->now); }

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
    uint64_t hash = cookie_hash(made, q->client, q->w->cookies.at);
    memcpy(made + 16, &hash, 8);
    put(out, (span){made, sizeof made});
}
