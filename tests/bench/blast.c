/* A closed-loop load generator: blast HOST PORT SECONDS WINDOW FILE
 *
 * FILE holds packets, each after its length (u16, little-endian). They are sent in turn from one connected socket, in batches of
 * at most 64, with at most WINDOW unanswered. Prints: replies, lost, seconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

enum { BATCH = 64, ROOM = 4096, MOST = 1 << 20 };

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static struct iovec packets[MOST];
static uint8_t room[BATCH][ROOM];

static size_t read_packets(const char *path)
{
    FILE *file = fopen(path, "rb");
    size_t count = 0;
    uint8_t length[2];
    while (file && count < MOST && fread(length, 1, 2, file) == 2) {
        size_t size = length[0] | (size_t)length[1] << 8;
        packets[count].iov_base = malloc(size);
        packets[count].iov_len = fread(packets[count].iov_base, 1, size, file);
        count++;
    }
    return count;
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    inet_pton(AF_INET, argv[1], &to.sin_addr);
    double length = atof(argv[3]);
    long window = atol(argv[4]), outstanding = 0, replies = 0, lost = 0;
    size_t count = read_packets(argv[5]), next = 0;
    int fd = socket(AF_INET, SOCK_DGRAM, 0), buffer = 4 << 20;
    struct timeval patience = {0, 50000};
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (!count || connect(fd, (struct sockaddr *)&to, sizeof to))
        return 2;
    struct mmsghdr out[BATCH] = {0}, in[BATCH] = {0};
    struct iovec parts[BATCH];
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){room[i], ROOM};
        in[i].msg_hdr.msg_iov = &parts[i];
        out[i].msg_hdr.msg_iovlen = in[i].msg_hdr.msg_iovlen = 1;
    }
    double start = seconds(), now = start;
    while ((now = seconds()) < start + length) {
        while (outstanding + BATCH <= window) {
            for (int i = 0; i < BATCH; i++, next = (next + 1) % count)
                out[i].msg_hdr.msg_iov = &packets[next];
            int sent = sendmmsg(fd, out, BATCH, 0);
            if (sent <= 0)
                break;
            outstanding += sent;
        }
        int got = recvmmsg(fd, in, BATCH, MSG_WAITFORONE, NULL);
        if (got < 0) {
            lost += outstanding;
            outstanding = 0;
            continue;
        }
        replies += got;
        outstanding -= got;
    }
    printf("%ld %ld %.6f\n", replies, lost, now - start);
    return 0;
}
