/* A path of a known length: mirror HOST PORT MICROSECONDS sends each datagram back after that time, as it came.

   On SIGTERM it prints how long it really held the median packet, in microseconds: from the kernel's time of arrival to just
   before the call that sends it back. What a prober measures beyond that is its own error, and the loopback's. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { ROOM = 512, HELD = 1 << 17, SAMPLES = 1 << 20 };
struct packet {
    int64_t came, due;
    struct sockaddr_in from;
    uint16_t size;
    uint8_t octets[ROOM];
};
static struct packet ring[HELD];
static int32_t holds[SAMPLES];
static uint32_t first, last, counted;
static volatile sig_atomic_t ended;

static void end(int number) { ended = number; }

static int by_size(const void *a, const void *b) { return *(const int32_t *)a - *(const int32_t *)b; }

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static int take(int fd, int64_t delay)
{
    struct packet *p = &ring[last % HELD];
    char control[64];
    struct iovec part = {p->octets, ROOM};
    struct msghdr head = {.msg_name = &p->from, .msg_namelen = sizeof p->from, .msg_iov = &part, .msg_iovlen = 1,
                          .msg_control = control, .msg_controllen = sizeof control};
    ssize_t got = last - first < HELD ? recvmsg(fd, &head, MSG_DONTWAIT) : -1;
    if (got < 0)
        return 0;
    p->came = now();
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&head); c; c = CMSG_NXTHDR(&head, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPNS) {
            struct timespec t;
            memcpy(&t, CMSG_DATA(c), sizeof t);
            p->came = t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
        }
    p->due = p->came + delay;
    p->size = (uint16_t)got;
    last++;
    return 1;
}

static void send_due(int fd)
{
    while (first != last && ring[first % HELD].due <= now()) {
        struct packet *p = &ring[first++ % HELD];
        holds[counted++ % SAMPLES] = (int32_t)((now() - p->came) / 1000);
        sendto(fd, p->octets, p->size, 0, (struct sockaddr *)&p->from, sizeof p->from);
    }
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    inet_pton(AF_INET, argv[1], &at.sin_addr);
    int fd = socket(AF_INET, SOCK_DGRAM, 0), buffer = 8 << 20, on = 1;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&at, sizeof at))
        return 1;
    signal(SIGTERM, end);
    int64_t delay = atoll(argv[3]) * 1000;
    while (!ended) {
        int64_t left = first != last ? ring[first % HELD].due - now() : INT64_C(100000000);
        left = left < 0 ? 0 : left > 100000000 ? 100000000 : left;
        struct timespec wait = {0, left};
        struct pollfd ready = {fd, POLLIN, 0};
        ppoll(&ready, 1, &wait, NULL);
        while (take(fd, delay))
            ;
        send_due(fd);
    }
    uint32_t size = counted < SAMPLES ? counted : SAMPLES;
    qsort(holds, size, sizeof *holds, by_size);
    printf("%d\n", size ? holds[size / 2] : -1);
    return 0;
}
