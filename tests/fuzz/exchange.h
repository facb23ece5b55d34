/* One input of the fuzzers: who asks, when and over what, and a packet; answered as Native.reply and as the loop would. */
#include "world.h"

static const double NOW = 1790000000.0; /* tests/conftest.py */
enum { TIMES = 5, TOGETHER = 2, PLACES_OF_LIMITER = 16 };

typedef struct {
    bool tcp;
    double now;
    span client, packet;
} question;

/* Octets: flags (TCP, IPv6, a third bit that lets the clock stand), then the client's address, then the packet. */
static bool read_input(span input, question *asked)
{
    size_t address = input.size && input.at[0] & 2 ? 16 : 4;
    if (input.size < 1 + address)
        return false;
    asked->tcp = input.at[0] & 1;
    asked->now = NOW + (input.at[0] & 4 ? 0 : (input.at[0] >> 3) * 0.25);
    asked->client = (span){input.at + 1, address};
    asked->packet = (span){input.at + 1 + address, input.size - 1 - address};
    return true;
}

/* As native_reply: the size of the reply in `octets`, SILENCE or HAND_BACK; counted. */
static long answer(const question *asked, uint8_t *octets)
{
    query q;
    sink out = {octets, 0, LARGEST, false};
    return reply_to(&q, &served.w, asked->packet, asked->client, asked->tcp, asked->now, &out);
}

/* A limiter of one reply a second, its places few so that outcomes meet. */
static limiter *make_limiter(void)
{
    static limiter made;
    static const uint8_t exempt[2 * PREFIX] = {4, 31, 198, 51, 100, 6, [PREFIX] = 6, 33, 0x20, 0x01, 0x0d, 0xb8, 0x80};
    if (!made.rate) {
        made.due = (table){must(calloc(PLACES_OF_LIMITER, 8)), PLACES_OF_LIMITER};
        made.over = (table){must(calloc(PLACES_OF_LIMITER, 4)), PLACES_OF_LIMITER};
        made.exempt = (table){must(malloc(sizeof exempt)), sizeof exempt};
        memcpy(made.exempt.at, exempt, sizeof exempt);
        made.rate = 1, made.surplus = 1000, made.slip = 2;
    }
    memset(made.due.at, 0, PLACES_OF_LIMITER * 8);
    return &made;
}

static loop *make_loop_without_socket(void)
{
    static loop *l;
    l = l ? l : must(calloc(1, sizeof *l));
    l->native = &served, l->limiter = make_limiter();
    l->ready = l->handed_count = 0, l->filled = l->marked = 0;
    l->memo.epoch++; /* the world's octets may be others */
    memset(l->fixed, 0, sizeof l->fixed);
    return l;
}

/* The packet comes several times, over UDP: some of them in one group, the others when its reply may be kept. What is to be sent
 * lies in `out` of the loop. */
static loop *serve_group(const question *asked)
{
    loop *l = make_loop_without_socket();
    uint8_t *own = must(malloc(asked->packet.size + !asked->packet.size));
    memcpy(own, asked->packet.at, asked->packet.size);
    l->now = asked->now;
    for (int i = 0; i < TIMES; i++) {
        l->in_part[i] = (struct iovec){own, RECEIVE_ROOM};
        l->in[i].msg_len = (unsigned)asked->packet.size;
        l->in[i].msg_hdr = (struct msghdr){.msg_name = &l->peer[i], .msg_iov = &l->in_part[i], .msg_iovlen = 1};
        l->peer[i] = (struct sockaddr_in6){.sin6_family = asked->client.size == 16 ? AF_INET6 : AF_INET};
        if (asked->client.size == 16)
            memcpy(&l->peer[i].sin6_addr, asked->client.at, 16);
        else
            memcpy(&((struct sockaddr_in *)&l->peer[i])->sin_addr, asked->client.at, 4);
    }
    answer_group(l, 0, TOGETHER);
    answer_group(l, TOGETHER, TIMES);
    free(own);
    return l;
}

static span sent(const loop *l, int i) { return (span){l->out_part[i].iov_base, l->out_part[i].iov_len}; }
