/* The native twin of fastpath.py and limit.py, and a loop around recvmmsg and sendmmsg that answers without the GIL.
 *
 * Whatever it says equals the reference path byte for byte and counts the same; where it can't, it hands back. It reads the
 * published sections (docs/snapshot-format.md) and what native.py lays beside them, and owns no state but the loop's.
 *
 * To be read in the order of the files below; each has one subject, most a Python twin.
 *
 * How it stays within bounds (_fastpath_bounds.h): a packet is read through a cursor (`pass`, `take8`, `take16`, `take32`), a
 * section through `byte`, `half`, `word` and `slice`, and octets are written through a sink (`put`, `put8`, `put16`, `add16`).
 * Each checks; one that is asked for too much gives nothing and sets a flag (`cut`, `broken`, `full`) that is looked at before
 * anything is sent.
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
enum { FORM = 9 };

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the published files are little-endian; plain Python answers here"
#endif

#include "_fastpath_bounds.h"
#include "_fastpath_cookie.h"
#include "_fastpath_asked.h"
#include "_fastpath_names.h"
#include "_fastpath_steer.h"
#include "_fastpath_answer.h"
#include "_fastpath_seen.h"
#include "_fastpath_limit.h"

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
    if (!power_of_two(l->due.count) || l->over.count != l->due.count || l->exempt.count % PREFIX) {
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
    Py_buffer packet, reply, client, secrets;
    double now;
    if (!PyArg_ParseTuple(args, "y*y*y*dy*", &packet, &reply, &client, &now, &secrets))
        return NULL;
    span asked = {packet.buf, (size_t)packet.len}, said = {reply.buf, (size_t)reply.len};
    span from = {client.buf, (size_t)client.len}, keys = {secrets.buf, (size_t)secrets.len};
    bool good = from.size == 4 || from.size == 16;
    int verdict = good ? limit(&((Limiter *)self)->l, asked, said, from, keys, now) : SEND;
    PyBuffer_Release(&packet);
    PyBuffer_Release(&reply);
    PyBuffer_Release(&client);
    PyBuffer_Release(&secrets);
    return PyLong_FromLong(verdict);
}

static PyMethodDef limiter_methods[] = {
    {"limit", limiter_limit, METH_VARARGS, "limit(packet, reply, client, now, secrets): as limit.limit"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot limiter_slots[] = {
    {Py_tp_new, limiter_new}, {Py_tp_dealloc, limiter_dealloc}, {Py_tp_methods, limiter_methods},
    {Py_tp_doc, "Limiter(rate, slip, dry_run, tag, left, at, over, exempt): the terms, and a limit.State's own arrays"},
    {0, NULL},
};

static PyType_Spec limiter_spec = {"edgedns.engine._fastpath.Limiter", sizeof(Limiter), 0, Py_TPFLAGS_DEFAULT, limiter_slots};

#ifdef __linux__
#include "_fastpath_loop.h"
#include "_fastpath_streams.h"
#endif

/* ---- the module ---------------------------------------------------------------------------------------------------------- */

static PyMethodDef functions[] = {
#ifdef __linux__
    {"serve", serve, METH_VARARGS, "serve(fd, wildcard, look, respond, limiter, bell): answer a UDP socket until it is shut down"},
    {"streams", streams, METH_VARARGS, "streams(epoll, patience, clients, native, now, bell, rung): one round of TCP connections"},
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
