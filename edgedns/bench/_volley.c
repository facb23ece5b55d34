/* The native twin of volley.Plain: asks by sendmmsg, hears by recvmmsg, without the GIL. Counts and times are the same.
 *
 * How it stays within bounds: packets and cells are buffers of Python's whose sizes are checked once, in `check`; a slot is found
 * by `& mask`, a bucket by `bucket`, and a reply is read only up to the size that recvmmsg gave.
 */

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

/* To be raised with volley.FORM when the cells or the signature change. */
enum { FORM = 1 };

enum { BATCH = 64, RECEIVE_ROOM = 4096, RECEIVE_STRIDE = RECEIVE_ROOM + 64, PORTS = 1024, HEADER = 12, ROW = 3 };
enum { NS_A_MS = 1000000, PATIENCE = 10 * NS_A_MS };
/* volley.Cell */
enum {
    SENT, ANSWERED, LOST, LATE, WRONG, STRANGE, REFUSED, BEHIND, TRUNCATED, TOTAL_NS, MOST_NS, OCTETS_OUT, OCTETS_IN,
    RCODE, HISTOGRAM = RCODE + 16, BUCKETS = 2240, CELLS = HISTOGRAM + BUCKETS,
};
enum { FREE, WAITING, GIVEN_UP };

typedef struct {
    int64_t due;
    uint32_t row;
    uint16_t id, state;
} slot;

typedef struct {
    int fd;
    uint32_t next, oldest; /* the sequence number of the next query, and of the oldest that may be unanswered */
    slot *slots;
} port;

typedef struct {
    PyObject_HEAD
    Py_buffer magazine, rows, cells_held;
    int holds;
    const uint8_t *packets;
    const uint32_t *row; /* offset, size, where the question ends */
    uint64_t *cells;
    uint32_t count, at; /* packets; the one to be sent next */
    uint32_t mask;
    unsigned ports, turn;
    port *port;
    struct pollfd *polled;
    double interval; /* ns between two queries; 0: closed loop */
    uint64_t window, burst;
    int64_t start, timeout;
    struct mmsghdr in[BATCH], out[BATCH];
    struct iovec in_part[BATCH], out_part[BATCH][2];
    uint8_t id[BATCH][2];
    uint8_t *received;
} Volley;

static int64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* As latency.bucket: 64 buckets to each doubling. */
static unsigned bucket(uint64_t ns)
{
    const uint64_t most = ((uint64_t)1 << 40) - 1;
    if (ns > most)
        ns = most;
    int shift = ns < 128 ? 0 : 57 - __builtin_clzll(ns);
    return ((unsigned)shift << 6) + (unsigned)(ns >> shift);
}

static uint64_t in_flight(const Volley *v) { return v->cells[SENT] - v->cells[ANSWERED] - v->cells[LOST]; }

/* When query number `i` is to be sent, in the open loop. */
static int64_t due(const Volley *v, uint64_t i) { return v->start + (int64_t)((double)(i - i % v->burst) * v->interval); }

/* ---- giving up ----------------------------------------------------------------------------------------------------------- */

static void give_up(Volley *v, slot *s)
{
    if (s->state == WAITING) {
        s->state = GIVEN_UP;
        v->cells[LOST]++;
    }
}

static void give_up_before(Volley *v, port *p, int64_t then)
{
    for (; p->oldest != p->next; p->oldest++) {
        slot *s = &p->slots[p->oldest & v->mask];
        if (s->state == WAITING && s->due > then)
            return;
        give_up(v, s);
    }
}

/* ---- asking -------------------------------------------------------------------------------------------------------------- */

/* How many queries should leave now, at most BATCH. */
static unsigned wanted(const Volley *v, int64_t now)
{
    unsigned count = 0;
    if (v->interval == 0) {
        uint64_t flying = in_flight(v), room = v->window > flying ? v->window - flying : 0;
        return room < BATCH ? (unsigned)room : BATCH;
    }
    while (count < BATCH && due(v, v->cells[SENT] + count) <= now)
        count++;
    return count;
}

static void load(Volley *v, const port *p, unsigned i)
{
    uint16_t id = (uint16_t)(p->next + i);
    const uint32_t *row = v->row + (size_t)((v->at + i) % v->count) * ROW;
    v->id[i][0] = (uint8_t)(id >> 8);
    v->id[i][1] = (uint8_t)id;
    v->out_part[i][0] = (struct iovec){v->id[i], 2};
    v->out_part[i][1] = (struct iovec){(void *)(v->packets + row[0] + 2), row[1] - 2};
}

static void note(Volley *v, port *p, int64_t now)
{
    uint64_t number = v->cells[SENT]++;
    int64_t at = v->interval > 0 ? due(v, number) : now;
    slot *s = &p->slots[p->next & v->mask];
    if (p->next - p->oldest > v->mask) { /* its number comes round: nobody waits that long */
        give_up(v, s);
        p->oldest++;
    }
    *s = (slot){at, v->at, (uint16_t)p->next, WAITING};
    v->cells[BEHIND] += now - at > NS_A_MS;
    v->cells[OCTETS_OUT] += v->row[(size_t)v->at * ROW + 1];
    v->at = (v->at + 1) % v->count;
    p->next++;
}

/* Send `count` queries from the next port; false when the kernel takes none for now. */
static bool ask(Volley *v, unsigned count, int64_t now)
{
    port *p = &v->port[v->turn];
    for (unsigned i = 0; i < count; i++)
        load(v, p, i);
    int sent = sendmmsg(p->fd, v->out, count, MSG_DONTWAIT);
    if (sent < 0) {
        bool full = errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS || errno == EINTR;
        v->cells[REFUSED] += !full;
        return false;
    }
    for (int i = 0; i < sent; i++)
        note(v, p, now);
    v->turn = (v->turn + 1) % v->ports;
    return true;
}

/* ---- hearing ------------------------------------------------------------------------------------------------------------- */

/* Is it a reply to this packet? One that carries an error may leave the question out. */
static bool answers(const Volley *v, uint32_t which, const uint8_t *reply, size_t size)
{
    const uint32_t *row = v->row + (size_t)which * ROW;
    const uint8_t *asked = v->packets + row[0];
    if (!(reply[2] & 0x80) || ((reply[2] ^ asked[2]) & 0x78))
        return false;
    unsigned questions = (unsigned)reply[4] << 8 | reply[5];
    if (questions == 0)
        return (reply[3] & 15) != 0;
    return questions == 1 && size >= row[2] && memcmp(reply + HEADER, asked + HEADER, row[2] - HEADER) == 0;
}

static void take(Volley *v, port *p, const uint8_t *reply, size_t size, int64_t now)
{
    v->cells[OCTETS_IN] += size;
    if (size < HEADER) {
        v->cells[STRANGE]++;
        return;
    }
    uint16_t id = (uint16_t)(reply[0] << 8 | reply[1]);
    slot *s = &p->slots[id & v->mask];
    if (s->state == FREE || s->id != id) {
        v->cells[STRANGE]++;
        return;
    }
    if (!answers(v, s->row, reply, size)) {
        v->cells[WRONG]++;
        return;
    }
    if (now - s->due > v->timeout)
        give_up(v, s);
    uint16_t state = s->state;
    s->state = FREE;
    if (state == GIVEN_UP) {
        v->cells[LATE]++;
        return;
    }
    uint64_t ns = now > s->due ? (uint64_t)(now - s->due) : 0;
    v->cells[ANSWERED]++;
    v->cells[RCODE + (reply[3] & 15)]++;
    v->cells[TRUNCATED] += (reply[2] & 2) != 0;
    v->cells[TOTAL_NS] += ns;
    if (ns > v->cells[MOST_NS])
        v->cells[MOST_NS] = ns;
    v->cells[HISTOGRAM + bucket(ns)]++;
}

static void hear(Volley *v, port *p)
{
    int got;
    do {
        got = recvmmsg(p->fd, v->in, BATCH, MSG_DONTWAIT, NULL);
        int64_t now = clock_ns();
        for (int i = 0; i < got; i++)
            take(v, p, v->in_part[i].iov_base, v->in[i].msg_len, now);
        if (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
            v->cells[REFUSED]++;
    } while (got == BATCH);
}

/* ---- the loop ------------------------------------------------------------------------------------------------------------ */

/* Hear what has come, or comes within `patience` ns. */
static void hear_all(Volley *v, int64_t patience)
{
    struct timespec most = {.tv_sec = 0, .tv_nsec = patience < 0 ? 0 : patience < PATIENCE ? patience : PATIENCE};
    if (ppoll(v->polled, v->ports, &most, NULL) <= 0)
        return;
    for (unsigned i = 0; i < v->ports; i++)
        if (v->polled[i].revents)
            hear(v, &v->port[i]);
}

static void run(Volley *v, int64_t until, bool asking)
{
    for (;;) {
        int64_t now = clock_ns();
        if (now >= until)
            return;
        for (unsigned i = 0; i < v->ports; i++)
            give_up_before(v, &v->port[i], now - v->timeout);
        if (!asking && !in_flight(v))
            return;
        unsigned count = asking ? wanted(v, now) : 0;
        bool sent = count && ask(v, count, now);
        int64_t patience = until - now;
        if (asking && v->interval > 0 && due(v, v->cells[SENT]) - now < patience)
            patience = due(v, v->cells[SENT]) - now;
        if (asking && (sent || count))
            patience = sent ? (wanted(v, now) ? 0 : patience) : NS_A_MS / 10;
        hear_all(v, patience);
    }
}

/* ---- the type ------------------------------------------------------------------------------------------------------------ */

static bool hold(PyObject *from, Py_buffer *held, int flags, int *holds)
{
    if (PyObject_GetBuffer(from, held, flags) < 0)
        return false;
    ++*holds;
    return true;
}

static bool refuse(const char *why)
{
    PyErr_SetString(PyExc_ValueError, why);
    return false;
}

/* What everything above relies on. */
static bool check(Volley *v)
{
    if (v->cells_held.len != (Py_ssize_t)(CELLS * sizeof(uint64_t)) || (uintptr_t)v->cells_held.buf % 8)
        return refuse("cells are of another form");
    size_t octets = (size_t)v->rows.len, size = (size_t)v->magazine.len;
    if (octets % (ROW * sizeof(uint32_t)) || !octets || octets / ROW / 4 > UINT32_MAX / 2 || (uintptr_t)v->rows.buf % 4)
        return refuse("rows are threes of u32, one for each packet");
    v->cells = v->cells_held.buf, v->row = v->rows.buf, v->packets = v->magazine.buf;
    v->count = (uint32_t)(octets / ROW / sizeof(uint32_t));
    for (uint32_t i = 0; i < v->count; i++) {
        const uint32_t *row = v->row + (size_t)i * ROW;
        if (row[0] > size || row[1] > size - row[0] || row[2] < HEADER || row[2] > row[1])
            return refuse("a row that leads out of the magazine");
    }
    if (!(v->interval >= 0) || v->burst < 1 || v->burst > 1 << 20 || v->timeout < 1)
        return refuse("interval, burst and timeout are above zero");
    return true;
}

static bool open_ports(Volley *v, PyObject *fds)
{
    Py_ssize_t count = PyTuple_Size(fds);
    if (count < 1 || count > PORTS || v->mask > 0xFFFF || (v->mask & (v->mask + 1)))
        return PyErr_Occurred() ? false : refuse("1 to 1024 sockets, and 2 to 65536 slots, a power of two");
    v->port = PyMem_Calloc((size_t)count, sizeof *v->port);
    v->polled = PyMem_Calloc((size_t)count, sizeof *v->polled);
    v->received = PyMem_Calloc(BATCH, RECEIVE_STRIDE);
    if (!v->port || !v->polled || !v->received)
        return PyErr_NoMemory() != NULL;
    for (; v->ports < (unsigned)count; v->ports++) {
        port *p = &v->port[v->ports];
        p->fd = (int)PyLong_AsLong(PyTuple_GetItem(fds, v->ports));
        p->slots = PyMem_Calloc((size_t)v->mask + 1, sizeof *p->slots);
        v->polled[v->ports] = (struct pollfd){.fd = p->fd, .events = POLLIN};
        if (!p->slots)
            return PyErr_NoMemory() != NULL;
        if (PyErr_Occurred())
            return false;
    }
    for (int i = 0; i < BATCH; i++) {
        v->in_part[i] = (struct iovec){v->received + (size_t)i * RECEIVE_STRIDE, RECEIVE_ROOM};
        v->in[i].msg_hdr = (struct msghdr){.msg_iov = &v->in_part[i], .msg_iovlen = 1};
        v->out[i].msg_hdr = (struct msghdr){.msg_iov = v->out_part[i], .msg_iovlen = 2};
    }
    return true;
}

static PyObject *volley_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *fds, *magazine, *rows, *cells;
    unsigned slots;
    double interval;
    unsigned long long window, burst;
    long long timeout, start;
    (void)keywords;
    if (!PyArg_ParseTuple(args, "O!OOOIdKKLL", &PyTuple_Type, &fds, &magazine, &rows, &cells, &slots, &interval, &window,
                          &burst, &timeout, &start))
        return NULL;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Volley *v = (Volley *)alloc(type, 0);
    if (!v)
        return NULL;
    v->interval = interval, v->window = window, v->burst = burst, v->timeout = timeout, v->start = start;
    v->mask = slots - 1;
    bool good = hold(magazine, &v->magazine, PyBUF_SIMPLE, &v->holds) && hold(rows, &v->rows, PyBUF_SIMPLE, &v->holds) &&
                hold(cells, &v->cells_held, PyBUF_WRITABLE, &v->holds) && check(v) && open_ports(v, fds);
    if (good)
        return (PyObject *)v;
    Py_DECREF(v);
    return NULL;
}

static void volley_dealloc(PyObject *self)
{
    Volley *v = (Volley *)self;
    Py_buffer *held[] = {&v->magazine, &v->rows, &v->cells_held};
    for (int i = 0; i < v->holds; i++)
        PyBuffer_Release(held[i]);
    for (unsigned i = 0; v->port && i < v->ports; i++)
        PyMem_Free(v->port[i].slots);
    PyMem_Free(v->port);
    PyMem_Free(v->polled);
    PyMem_Free(v->received);
    PyTypeObject *type = Py_TYPE(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyObject *volley_fire(PyObject *self, PyObject *args)
{
    long long until;
    int asking;
    if (!PyArg_ParseTuple(args, "Lp", &until, &asking))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    int slack = prctl(PR_GET_TIMERSLACK);
    prctl(PR_SET_TIMERSLACK, 1000UL); /* ns; the usual 50 us would be most of what is measured */
    run((Volley *)self, until, asking);
    prctl(PR_SET_TIMERSLACK, slack > 0 ? (unsigned long)slack : 0UL);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef volley_methods[] = {
    {"fire", volley_fire, METH_VARARGS, "fire(until, asking): as volley.Plain.fire"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot volley_slots[] = {
    {Py_tp_new, volley_new}, {Py_tp_dealloc, volley_dealloc}, {Py_tp_methods, volley_methods},
    {Py_tp_doc, "Volley(fds, magazine, rows, cells, slots, interval, window, burst, timeout, start): as volley.Plain"},
    {0, NULL},
};

static PyType_Spec volley_spec = {"edgedns.bench._volley.Volley", sizeof(Volley), 0, Py_TPFLAGS_DEFAULT, volley_slots};

static int execute(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&volley_spec);
    int failed = type ? PyModule_AddObjectRef(module, "Volley", type) : -1;
    Py_XDECREF(type);
    return failed || PyModule_AddIntConstant(module, "FORM", FORM) < 0 ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_volley", "The native twin of volley.Plain.", 0, NULL, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__volley(void) { return PyModuleDef_Init(&definition); }
