/* The Internet between namespaces: one process that reads packets from TUN devices, holds them back as long as their path takes,
 * loses some, and lands those to an anycast address at the PoP whose catchment the sender is in. (There is no netem to do it.)
 *
 * Orders come on standard input, a line each, and every one is answered by a line: `ok ...` or `error ...`.
 *   port NAME                        a TUN device, to be moved into a namespace; ok NUMBER
 *   site SITE PORT ADDRESS BITS      what lies behind a port
 *   anycast PROVIDER ADDRESS         an address that a provider announces
 *   landing POP PROVIDER PORT        where its packets enter a PoP, and leave it
 *   path SITE PROVIDER POP RTT JITTER LOSS [TO_BAD TO_GOOD]
 *                                    microseconds, and losses in a million packets each way. With the last two, chances in a
 *                                    million per packet, losses come in bursts: only while the path is bad (Gilbert-Elliott)
 *   unicast RTT                      between sites, in microseconds
 *   cut PORT 0|1                     nothing passes there
 *   count                            ok FORWARDED LOST CUT LOST_WITHOUT_ROUTE FROM_A_WRONG_ADDRESS QUEUE_FULL
 * It ends with its standard input.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <math.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { PORTS = 64, SITES = 512, PROVIDERS = 16, POPS = 16, PREFIXES = 2048, QUEUE = 1 << 16, LARGEST = 2048, MILLION = 1000000 };
enum { FORWARDED, LOST, CUT, NO_ROUTE, WRONG_SOURCE, FULL, COUNTS };

typedef struct {
    uint8_t octets[16];
    unsigned family; /* 4 or 6 */
} address;

typedef struct {
    int fd, pop; /* pop -1: a port of sites */
    bool cut;
} port;

typedef struct {
    address at;
    unsigned bits;
    int site, port;
} prefix;

typedef struct {
    int pop; /* -1: none leads there */
    unsigned rtt, jitter, loss, to_bad, to_good;
    bool bad;
} path;

typedef struct {
    int64_t due;
    int port;
    unsigned size;
    uint8_t *octets;
} packet;

static port ports[PORTS];
static prefix prefixes[PREFIXES], announced[PREFIXES]; /* of `announced` the site is the provider */
static path paths[SITES][PROVIDERS];
static int landing[POPS][PROVIDERS], port_count, prefix_count, announced_count;
static unsigned unicast_rtt = 2000;
static packet *queue; /* a heap, the earliest first */
static size_t queued;
static uint64_t counts[COUNTS], dice = 88172645463325252u;

static int64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Marsaglia's xorshift64: 0 up to a million, the same ones in each run. */
static unsigned throw_dice(void)
{
    dice ^= dice << 13, dice ^= dice >> 7, dice ^= dice << 17;
    return (unsigned)((dice >> 20) % MILLION);
}

/* ---- the queue ------------------------------------------------------------------------------------------------------ */

static void swap(size_t a, size_t b)
{
    packet held = queue[a];
    queue[a] = queue[b], queue[b] = held;
}

static void push(packet one)
{
    if (queued == QUEUE) {
        counts[FULL]++;
        free(one.octets);
        return;
    }
    size_t at = queued++;
    queue[at] = one;
    for (; at && queue[(at - 1) / 2].due > queue[at].due; at = (at - 1) / 2)
        swap(at, (at - 1) / 2);
}

static packet pop(void)
{
    packet first = queue[0];
    queue[0] = queue[--queued];
    for (size_t at = 0;;) {
        size_t least = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < queued; child++)
            if (queue[child].due < queue[least].due)
                least = child;
        if (least == at)
            return first;
        swap(at, least);
        at = least;
    }
}

/* ---- routing -------------------------------------------------------------------------------------------------------- */

static bool holds(const prefix *one, const address *what)
{
    if (one->at.family != what->family || memcmp(one->at.octets, what->octets, one->bits / 8))
        return false;
    unsigned rest = one->bits % 8;
    return !rest || !((one->at.octets[one->bits / 8] ^ what->octets[one->bits / 8]) >> (8 - rest));
}

static const prefix *longest(const prefix *among, int count, const address *what)
{
    const prefix *found = NULL;
    for (int i = 0; i < count; i++)
        if ((!found || among[i].bits > found->bits) && holds(&among[i], what))
            found = &among[i];
    return found;
}

static bool read_addresses(const uint8_t *octets, unsigned size, address *from, address *to)
{
    unsigned version = size ? octets[0] >> 4 : 0;
    if (version == 4 && size >= 20) {
        *from = (address){.family = 4}, *to = (address){.family = 4};
        memcpy(from->octets, octets + 12, 4), memcpy(to->octets, octets + 16, 4);
        return true;
    }
    if (version != 6 || size < 40)
        return false;
    from->family = to->family = 6;
    memcpy(from->octets, octets + 8, 16), memcpy(to->octets, octets + 24, 16);
    return true;
}

static bool is_lost(path *on)
{
    if (on->to_bad || on->to_good) {
        if (throw_dice() < (on->bad ? on->to_good : on->to_bad))
            on->bad = !on->bad;
        if (!on->bad)
            return false;
    }
    return throw_dice() < on->loss;
}

/* How long a packet is under way, in nanoseconds: half the round trip, and queues that come and go (mean: `jitter`). */
static int64_t way(const path *on)
{
    double queues = on->jitter ? -log((throw_dice() + 1.0) / (MILLION + 1.0)) * on->jitter / 2 : 0;
    return (int64_t)((on->rtt / 2.0 + queues) * 1000);
}

static void forward(int to, int64_t due, const uint8_t *octets, unsigned size)
{
    packet one = {due, to, size, malloc(size)};
    memcpy(one.octets, octets, size);
    push(one);
}

static void route(int in, const uint8_t *octets, unsigned size, int64_t now)
{
    address from, to;
    if (!read_addresses(octets, size, &from, &to))
        return;
    if (ports[in].cut) {
        counts[CUT]++;
        return;
    }
    const prefix *source = longest(prefixes, prefix_count, &from), *target = longest(prefixes, prefix_count, &to);
    const prefix *of = longest(announced, announced_count, &from), *at = longest(announced, announced_count, &to);
    path plain = {.pop = 0, .rtt = unicast_rtt}, *on = &plain;
    int out = target ? target->port : -1;
    if (ports[in].pop >= 0) { /* from a PoP through a provider */
        if (!of || landing[ports[in].pop][of->site] != in) {
            counts[WRONG_SOURCE]++;
            return;
        }
        if (target)
            on = &paths[target->site][of->site];
    } else if (of || !source || source->port != in) {
        counts[WRONG_SOURCE]++;
        return;
    } else if (at) { /* to an anycast address: whose PoP? */
        on = &paths[source->site][at->site];
        out = on->pop < 0 ? -1 : landing[on->pop][at->site];
    }
    if (out < 0 || on->pop < 0)
        counts[NO_ROUTE]++;
    else if (ports[out].cut)
        counts[CUT]++;
    else if (is_lost(on))
        counts[LOST]++;
    else
        forward(out, now + way(on), octets, size);
}

/* ---- orders --------------------------------------------------------------------------------------------------------- */

static bool read_address(const char *text, address *made)
{
    *made = (address){.family = strchr(text, ':') ? 6 : 4};
    return inet_pton(made->family == 4 ? AF_INET : AF_INET6, text, made->octets) == 1;
}

static int open_port(const char *name)
{
    struct ifreq wanted = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    snprintf(wanted.ifr_name, IFNAMSIZ, "%s", name);
    if (port_count == PORTS || fd < 0 || ioctl(fd, TUNSETIFF, &wanted) < 0)
        return -1;
    ports[port_count] = (port){fd, -1, false};
    return port_count++;
}

static bool within(int value, int most) { return value >= 0 && value < most; }

static bool add_prefix(prefix *to, int *count, const char *text, prefix one)
{
    return *count < PREFIXES && read_address(text, &one.at) && one.bits <= (one.at.family == 4 ? 32u : 128u) && (to[(*count)++] = one, true);
}

static bool obey(const char *line)
{
    char text[64];
    int a, b, c;
    path p = {0};
    unsigned bits;
    if (sscanf(line, "site %d %d %63s %u", &a, &b, text, &bits) == 4)
        return within(a, SITES) && within(b, port_count) &&
               add_prefix(prefixes, &prefix_count, text, (prefix){.bits = bits, .site = a, .port = b});
    if (sscanf(line, "anycast %d %63s", &a, text) == 2)
        return within(a, PROVIDERS) && add_prefix(announced, &announced_count, text, (prefix){.bits = strchr(text, ':') ? 128 : 32, .site = a});
    if (sscanf(line, "landing %d %d %d", &a, &b, &c) == 3) {
        if (!within(a, POPS) || !within(b, PROVIDERS) || !within(c, port_count))
            return false;
        landing[a][b] = c, ports[c].pop = a;
        return true;
    }
    if (sscanf(line, "path %d %d %d %u %u %u %u %u", &a, &b, &p.pop, &p.rtt, &p.jitter, &p.loss, &p.to_bad, &p.to_good) >= 6) {
        if (!within(a, SITES) || !within(b, PROVIDERS) || !within(p.pop, POPS))
            return false;
        paths[a][b] = p;
        return true;
    }
    if (sscanf(line, "cut %d %d", &a, &b) == 2)
        return within(a, port_count) && (ports[a].cut = b != 0, true);
    return sscanf(line, "unicast %u", &unicast_rtt) == 1;
}

static void answer(const char *line)
{
    char name[IFNAMSIZ];
    int made;
    if (sscanf(line, "port %15s", name) == 1)
        (made = open_port(name)) < 0 ? printf("error no device\n") : printf("ok %d\n", made);
    else if (!strcmp(line, "count"))
        printf("ok %lu %lu %lu %lu %lu %lu\n", counts[0], counts[1], counts[2], counts[3], counts[4], counts[5]);
    else
        printf(obey(line) ? "ok\n" : "error %s\n", line);
    fflush(stdout);
}

/* False when there will be no more orders. */
static bool take_orders(void)
{
    static char text[1 << 16];
    static size_t held;
    ssize_t more = read(STDIN_FILENO, text + held, sizeof text - held - 1);
    if (more <= 0)
        return false;
    held += (size_t)more;
    char *start = text, *end;
    for (; (end = memchr(start, '\n', held - (size_t)(start - text))); start = end + 1) {
        *end = 0;
        answer(start);
    }
    held -= (size_t)(start - text);
    memmove(text, start, held);
    return held < sizeof text - 1;
}

/* ---- the loop ------------------------------------------------------------------------------------------------------- */

static void deliver(int64_t now)
{
    while (queued && queue[0].due <= now) {
        packet one = pop();
        if (write(ports[one.port].fd, one.octets, one.size) == (ssize_t)one.size)
            counts[FORWARDED]++;
        else
            counts[CUT]++; /* the device is down */
        free(one.octets);
    }
}

static void receive(int in)
{
    uint8_t octets[LARGEST];
    ssize_t size;
    for (int i = 0; i < 32 && (size = read(ports[in].fd, octets, sizeof octets)) > 0; i++)
        route(in, octets, (unsigned)size, nanoseconds());
}

int main(void)
{
    struct pollfd watched[PORTS + 1] = {{.fd = STDIN_FILENO, .events = POLLIN}};
    queue = calloc(QUEUE, sizeof *queue);
    for (int i = 0; i < SITES * PROVIDERS; i++)
        paths[i / PROVIDERS][i % PROVIDERS].pop = -1;
    prctl(PR_SET_TIMERSLACK, 1000ul);
    for (;;) {
        int64_t wait = queued ? queue[0].due - nanoseconds() : 1000000000;
        struct timespec until = {.tv_sec = wait > 0 ? wait / 1000000000 : 0, .tv_nsec = wait > 0 ? wait % 1000000000 : 0};
        for (int i = 0; i < port_count; i++)
            watched[1 + i] = (struct pollfd){.fd = ports[i].fd, .events = POLLIN};
        ppoll(watched, (nfds_t)(1 + port_count), &until, NULL);
        deliver(nanoseconds());
        for (int i = 0; i < port_count; i++)
            if (watched[1 + i].revents & POLLIN)
                receive(i);
        if (watched[0].revents && !take_orders())
            return 0;
    }
}
