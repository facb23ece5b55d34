/* Kept TCP connections, for serve/tcp.py: what is whole and plain is answered here, all that is not is given back to Python. */

#include <sys/epoll.h>

enum {
    EVENTS = 32,
    AT_ONCE = 4096,           /* octets that are read of one connection, as tcp.Limits has it */
    MESSAGES_MOST = 256,      /* of one round, which nobody interrupts; what is left is told of again */
    STREAM_ROOM = 1 << 17,    /* for replies: the last of them may be the longest that there is */
    STREAM_ROW = 17,          /* of `clients`: the octets of the address (0: not for us), and the address */
};

/* One turn of a connection: what was read, what is to be sent, how far both are. */
typedef struct {
    span in;
    size_t read;
    sink out;
    size_t sent;
    int replies, messages;
} turn;

/* Answer whole messages, each behind its length, until one is cut off or for Python. */
static void answer_messages(turn *t, Native *native, span client, double now)
{
    uint64_t *cells = native->w.counters.at;
    while (t->in.size - t->read >= 2 && t->out.room - t->out.size >= 2 + LARGEST) {
        const uint8_t *at = t->in.at + t->read;
        size_t size = (size_t)at[0] << 8 | at[1], begun = t->out.size;
        if (size > t->in.size - t->read - 2)
            return;
        query q;
        uint32_t marks[MARKS_EACH];
        size_t marked = 0;
        begin(&q, &native->w, (span){at + 2, size}, client, true, now);
        if (is_transfer(&q)) /* transfer.begin is asked first */
            return;
        advance(&q, 1);
        sink reply = {t->out.at + begun + 2, 0, LARGEST, false};
        long made = finish(&q, &reply, marks, &marked);
        if (made == HAND_BACK)
            return;
        t->read += 2 + size;
        t->messages++;
        cells[TCP_RECEIVED]++;
        if (made == SILENCE) {
            cells[TCP_SILENT]++;
            continue;
        }
        apply(&native->w, marks, marked);
        if (native->w.ring.count && is_due(native->w.dice.at))
            note(&q);
        put16(&t->out, (unsigned)made);
        t->out.size += (size_t)made;
        t->replies++;
    }
}

/* Let a connection go on. False where nothing came that could be read here, and Python is to look at it. */
static bool go_on(turn *t, int fd, Native *native, span client, double now, uint8_t *octets)
{
    ssize_t got = recv(fd, octets, AT_ONCE, MSG_DONTWAIT);
    if (got <= 0)
        return got < 0 && (errno == EAGAIN || errno == EINTR);
    t->in = (span){octets, (size_t)got};
    answer_messages(t, native, client, now);
    if (t->out.size) {
        ssize_t sent = send(fd, t->out.at, t->out.size, MSG_DONTWAIT | MSG_NOSIGNAL);
        t->sent = sent > 0 ? (size_t)sent : 0;
    }
    if (t->sent == t->out.size) {
        ((uint64_t *)native->w.counters.at)[TCP_REPLIED] += (uint64_t)t->replies;
        t->replies = 0;
    }
    return true;
}

/* The client's address of a connection that is for us, empty of any other. */
static span client_at(const Py_buffer *clients, int fd)
{
    size_t row = (size_t)fd * STREAM_ROW;
    const uint8_t *at = clients->buf;
    if (fd < 0 || row + STREAM_ROW > (size_t)clients->len || (at[row] != 4 && at[row] != 16))
        return (span){at, 0};
    return (span){at + row + 1, at[row]};
}

/* One event: true where it is settled. Into `rest` goes what Python has to do: (descriptor, events, unread, unsent, replies). */
static bool settle_event(const struct epoll_event *event, Native *native, span client, double now, turn *t, PyObject *served,
                         PyObject *rest)
{
    int fd = event->data.fd;
    uint8_t octets[AT_ONCE];
    uint32_t events = event->events;
    if (client.size && events == EPOLLIN && go_on(t, fd, native, client, now, octets))
        events = 0;
    PyObject *told = NULL;
    if (t->messages) {
        told = PyLong_FromLong(fd);
        if (!told || PyList_Append(served, told) < 0)
            goto out;
    }
    if (events || t->read < t->in.size || t->sent < t->out.size) {
        Py_XDECREF(told);
        told = Py_BuildValue("iIy#y#i", fd, events, (const char *)t->in.at + t->read, (Py_ssize_t)(t->in.size - t->read),
                             (const char *)t->out.at + t->sent, (Py_ssize_t)(t->out.size - t->sent), t->replies);
        if (!told || PyList_Append(rest, told) < 0)
            goto out;
    }
out:
    Py_XDECREF(told);
    return !PyErr_Occurred();
}

static PyObject *streams(PyObject *module, PyObject *args)
{
    int epoll, patience;
    Py_buffer clients, bell;
    PyObject *native;
    double now;
    unsigned long long rung;
    if (!PyArg_ParseTuple(args, "iiy*Ody*K", &epoll, &patience, &clients, &native, &now, &bell, &rung))
        return NULL;
    PyTypeObject *native_type = (PyTypeObject *)PyObject_GetAttrString(module, "Native");
    PyObject *served = PyList_New(0), *rest = PyList_New(0);
    bool good = native_type && served && rest;
    if (good && (Py_TYPE(native) != native_type || ((Native *)native)->w.counters.count < FIXED)) {
        PyErr_SetString(PyExc_TypeError, "a Native that counts answers");
        good = false;
    }
    good = good && is_bell(&bell);
    struct epoll_event events[EVENTS];
    int count = 0, messages = 0;
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        count = epoll_wait(epoll, events, EVENTS, patience);
        Py_END_ALLOW_THREADS
        if (count < 0 && errno != EINTR)
            good = PyErr_SetFromErrno(PyExc_OSError) != NULL;
        if (good && rings(bell.buf) != rung)
            count = 0; /* another Native is to answer what came */
    }
    for (int i = 0; good && i < count && messages < MESSAGES_MOST; i++) {
        uint8_t replies[STREAM_ROOM];
        turn t = {.in = {replies, 0}, .out = {replies, 0, STREAM_ROOM, false}};
        good = settle_event(&events[i], (Native *)native, client_at(&clients, events[i].data.fd), now, &t, served, rest);
        messages += t.messages;
    }
    PyBuffer_Release(&clients);
    PyBuffer_Release(&bell);
    Py_XDECREF((PyObject *)native_type);
    PyObject *told = good ? PyTuple_Pack(2, served, rest) : NULL;
    Py_XDECREF(served);
    Py_XDECREF(rest);
    return told;
}
