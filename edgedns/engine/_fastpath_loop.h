/* The loop around recvmmsg and sendmmsg, which answers a UDP socket without the GIL. */

#include <errno.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#include "_fastpath_memo.h"

enum {
    BATCH = 64,
    GROUP = 16,                         /* messages that wait for memory together */
    HANDED_MAX = 16,                    /* of a batch; what is handed back beyond them is not answered */
    KEEP_EVERY = 100, LOOK_EVERY = 500, /* ms: counts, while packets come; what is published, where nobody rings */
    PATIENCE = 500,                     /* ms, while no packets come */
    RECEIVE_ROOM = 65535,               /* no datagram is longer */
    RECEIVE_STRIDE = 65536 + 64,        /* strides that spread over the cache's sets */
    REPLY_ROOM = 2112, CACHE_LINE = 64, /* the one is whole lines of the other */
    CONTROL_ROOM = 64,
    MARKS = 8192,
};
/* edgedns/metrics.py: the fixed cells. */
enum {
    RECEIVED, REPLIED, SILENT, RAISED, UNSENT, TCP_RECEIVED, TCP_REPLIED, TCP_SILENT, TRUNCATED = 10, RATE_DROPPED = 14, RATE_SLIPPED, HANDED_BACK, SHED, FIXED,
};

/* A message that is answered stage by stage: its number, and where its reply is to be kept (or NULL). */
typedef struct {
    int message;
    kept *place;
} open_one;

typedef struct {
    int fd;
    bool wildcard, stop;
    int error; /* errno of a receive that failed for good */
    Native *native;   /* what answers, NULL: all is handed back */
    limiter *limiter; /* NULL: none */
    const uint64_t *bell;
    uint64_t rung; /* how often, at the last look */
    double now, told;     /* Unix seconds: of this batch, and as the last look said */
    int64_t told_at, look_at, keep_at; /* ms of CLOCK_MONOTONIC */
    struct mmsghdr in[BATCH], out[BATCH];
    struct iovec in_part[BATCH], out_part[BATCH];
    struct sockaddr_in6 peer[BATCH];
    _Alignas(struct cmsghdr) uint8_t control[BATCH][CONTROL_ROOM];
    uint8_t *received;
    uint8_t replies[BATCH * REPLY_ROOM]; /* one behind the other: few pages are touched */
    size_t filled;
    int ready, taken; /* replies in `out`; messages of `in` whose headers must be set anew */
    int waiting;      /* messages received, none of them answered yet */
    int patience;     /* ms */
    int handed[HANDED_MAX], handed_count;
    query asked[GROUP];
    open_one open[GROUP];
    memo memo;
    uint32_t marks[MARKS];
    size_t marked;
    uint64_t dice[DICE]; /* its own, from the Native's: no two loops count the same down */
    uint64_t fixed[FIXED];
} loop;

/* How often a bell has been rung: whoever has something new to answer from adds to it. */
static uint64_t rings(const uint64_t *bell) { return __atomic_load_n(bell, __ATOMIC_ACQUIRE); }

static bool is_bell(const Py_buffer *buffer)
{
    if (buffer->len == sizeof(uint64_t) && (uintptr_t)buffer->buf % sizeof(uint64_t) == 0)
        return true;
    PyErr_SetString(PyExc_ValueError, "a bell is one number of eight octets");
    return false;
}

static int64_t milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* How long to wait for messages. */
static bool be_patient(loop *l, int patience)
{
    const struct timeval time = {0, patience * 1000};
    bool good = l->patience == patience || setsockopt(l->fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time) == 0;
    l->patience = patience;
    return good;
}

/* Wait for messages; none may come. */
static void receive(loop *l)
{
    for (int i = 0; i < l->taken; i++) {
        l->in[i].msg_hdr.msg_namelen = sizeof l->peer[i];
        l->in[i].msg_hdr.msg_controllen = l->wildcard ? CONTROL_ROOM : 0;
    }
    int count = recvmmsg(l->fd, l->in, BATCH, MSG_WAITFORONE, NULL);
    if (count < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
        l->error = errno;
    l->waiting = l->taken = count > 0 ? count : 0;
    be_patient(l, l->waiting ? KEEP_EVERY : PATIENCE);
    if (l->waiting && !l->in[l->waiting - 1].msg_hdr.msg_namelen) { /* from nobody: it was shut down, its queue is empty */
        l->stop = true;
        l->waiting--;
    }
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
    span secrets = l->native ? whole(&l->native->w.cookies) : (span){packet.at, 0};
    int verdict = limit(l->limiter, packet, (span){reply, size}, client_of(l, i), secrets, l->now);
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
    l->filled += (size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
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
    l->filled = 0;
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

/* Limit and send the reply to message `i` that lies at the end of `replies`. */
static void give(loop *l, int i, size_t size)
{
    uint8_t *octets = l->replies + l->filled;
    size = limited(l, i, octets, size);
    if (size)
        make_ready(l, i, octets, size);
    else
        l->fixed[SILENT]++;
}

static void answer_one(loop *l, const open_one *one, query *q)
{
    sink out = {l->replies + l->filled, 0, REPLY_ROOM, false};
    size_t marked = l->marked;
    long size = finish(q, &out, l->marks, &l->marked);
    if (size == HAND_BACK) {
        hand_over(l, one->message);
        return;
    }
    if (size == SILENCE) {
        l->fixed[SILENT]++;
        return;
    }
    if (one->place && !q->cookie.size)
        keep(&l->memo, one->place, q, (span){out.at, out.size}, l->marks + marked, l->marked - marked);
    if (q->w->ring.count && is_due(l->dice))
        note(q);
    give(l, one->message, (size_t)size);
}

/* Give a reply again. `q` is room to read the packet, for the sample, which is to know more than is kept. */
static void give_again(loop *l, int i, const kept *k, span packet, span client, query *q)
{
    sink out = {l->replies + l->filled, 0, REPLY_ROOM, false};
    put_kept(k, packet, &out);
    memcpy(l->marks + l->marked, k->marks, k->marked * sizeof *k->marks);
    l->marked += k->marked;
    if (l->native->w.ring.count && is_due(l->dice)) {
        take_in(q, &l->native->w, packet, client, false, l->now);
        q->said.answered = k->answered;
        q->said.rcode = k->rcode;
        note(q);
    }
    give(l, i, out.size);
}

/* Answer messages first..last-1: at most GROUP of them, at once those whose replies are kept, the others stage by stage. */
static void answer_group(loop *l, int first, int last)
{
    int open = 0;
    for (int i = first; i < last && l->native; i++) {
        span packet = {l->in_part[i].iov_base, l->in[i].msg_len}, client = client_of(l, i);
        kept *place = place_of(&l->memo, packet, client);
        if (place && is_kept(&l->memo, place, packet, client)) {
            give_again(l, i, place, packet, client, &l->asked[open]);
            continue;
        }
        begin(&l->asked[open], &l->native->w, packet, client, false, l->now);
        l->open[open++] = (open_one){i, place};
    }
    advance(l->asked, open);
    for (int k = 0; k < open; k++)
        answer_one(l, &l->open[k], &l->asked[k]);
    for (int i = first; i < last && !l->native; i++)
        hand_over(l, i);
}

static void answer_batch(loop *l)
{
    l->fixed[RECEIVED] += (uint64_t)l->waiting;
    for (int first = 0; first < l->waiting; first += GROUP)
        answer_group(l, first, first + GROUP < l->waiting ? first + GROUP : l->waiting);
    l->waiting = 0;
    send_ready(l);
}

/* Take the time for a batch, which never runs backwards; whether Python is wanted before it is answered. */
static bool tick(loop *l)
{
    int64_t at = milliseconds();
    double now = l->told + (double)(at - l->told_at) / 1000;
    l->now = now > l->now ? now : l->now;
    return rings(l->bell) != l->rung || at >= l->look_at || at >= l->keep_at;
}

/* Receive and answer until something needs Python: counts to be kept, packets handed back, a look at what is published, which
 * comes before the answers to packets that nobody expected. */
static void run(loop *l)
{
    while (!l->error && !l->handed_count && l->marked + MARKS_EACH * BATCH <= MARKS) {
        if (!l->waiting) {
            if (l->stop)
                return;
            receive(l);
        }
        if (!l->stop && tick(l))
            return;
        answer_batch(l);
    }
}

static void keep_counts(loop *l)
{
    l->keep_at = milliseconds() + KEEP_EVERY;
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
            memcpy(l->replies, octets, kept);
            kept = kept ? limited(l, i, l->replies, kept) : 0;
            if (kept)
                make_ready(l, i, l->replies, kept);
            else
                l->fixed[SILENT]++;
            send_ready(l);
        }
        Py_DECREF(said);
    }
    l->handed_count = 0;
    return true;
}

/* `look()` gives (Native or None, now), what answers from here on; or None: what was received is answered yet, and no more. */
static bool look(loop *l, PyObject *look_at, PyTypeObject *native_type)
{
    l->rung = rings(l->bell); /* first: what comes after it rings again */
    PyObject *seen = PyObject_CallNoArgs(look_at), *native;
    if (!seen)
        return false;
    if (seen == Py_None) {
        l->stop = true;
        Py_DECREF(seen);
        return true;
    }
    bool good = PyArg_ParseTuple(seen, "Od", &native, &l->told);
    if (good && native != Py_None && Py_TYPE(native) != native_type) {
        PyErr_SetString(PyExc_TypeError, "look() gives a Native or None, and the time");
        good = false;
    }
    if (good) {
        PyObject *before = (PyObject *)l->native;
        l->native = native == Py_None ? NULL : (Native *)native;
        Py_XINCREF((PyObject *)l->native);
        l->memo.epoch += (PyObject *)l->native != before; /* both are alive: no two Natives at one address */
        Py_XDECREF(before);
        l->told_at = milliseconds();
        l->look_at = l->told_at + LOOK_EVERY;
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

static void free_loop(loop *l)
{
    Py_XDECREF((PyObject *)l->native);
    munmap(l->received, (size_t)BATCH * RECEIVE_STRIDE);
    PyMem_Free(l);
}

/* Answer until the end: `stop`, and nothing waits. False with an error set. */
static bool serve_all(loop *l, PyObject *look_at, PyObject *respond, PyTypeObject *native_type)
{
    while (!(l->stop && !l->waiting)) {
        if (!l->stop && (rings(l->bell) != l->rung || milliseconds() >= l->look_at) && !look(l, look_at, native_type))
            return false;
        Py_BEGIN_ALLOW_THREADS
        run(l);
        Py_END_ALLOW_THREADS
        bool good = hand_back(l, respond);
        keep_counts(l);
        if (!good)
            return false;
        if (l->error) {
            errno = l->error;
            PyErr_SetFromErrno(PyExc_OSError);
            return false;
        }
    }
    return true;
}

static PyObject *serve(PyObject *module, PyObject *args)
{
    int fd, wildcard;
    PyObject *look_at, *respond, *limiting;
    Py_buffer bell;
    if (!PyArg_ParseTuple(args, "ipOOOy*", &fd, &wildcard, &look_at, &respond, &limiting, &bell))
        return NULL;
    PyTypeObject *native_type = (PyTypeObject *)PyObject_GetAttrString(module, "Native");
    PyTypeObject *limiter_type = (PyTypeObject *)PyObject_GetAttrString(module, "Limiter");
    loop *l = native_type && limiter_type && is_bell(&bell) ? make_loop(fd, wildcard) : NULL;
    bool good = l != NULL;
    if (good && limiting != Py_None && Py_TYPE(limiting) != limiter_type) {
        PyErr_SetString(PyExc_TypeError, "limiting is a Limiter or None");
        good = false;
    }
    if (good && !be_patient(l, PATIENCE))
        good = PyErr_SetFromErrno(PyExc_OSError) != NULL;
    if (good) {
        l->bell = bell.buf;
        l->limiter = limiting == Py_None ? NULL : &((Limiter *)limiting)->l;
        good = serve_all(l, look_at, respond, native_type);
    }
    if (l)
        free_loop(l);
    Py_XDECREF((PyObject *)native_type);
    Py_XDECREF((PyObject *)limiter_type);
    PyBuffer_Release(&bell);
    if (!good)
        return NULL;
    Py_RETURN_NONE;
}
