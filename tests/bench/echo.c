/* The kernel's floor: echo HOST PORT sends back what comes, as a reply, by recvmmsg and sendmmsg, and does nothing else. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { BATCH = 64, ROOM = 4096 };
static uint8_t room[BATCH][ROOM + 64];

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))}, peer[BATCH];
    inet_pton(AF_INET, argv[1], &at.sin_addr);
    int fd = socket(AF_INET, SOCK_DGRAM, 0), buffer = 1 << 20;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    if (bind(fd, (struct sockaddr *)&at, sizeof at))
        return 1;
    struct mmsghdr in[BATCH] = {0}, out[BATCH] = {0};
    struct iovec in_parts[BATCH], out_parts[BATCH];
    for (int i = 0; i < BATCH; i++) {
        in_parts[i] = (struct iovec){room[i], ROOM};
        in[i].msg_hdr = (struct msghdr){.msg_name = &peer[i], .msg_iov = &in_parts[i], .msg_iovlen = 1};
        out[i].msg_hdr = (struct msghdr){.msg_name = &peer[i], .msg_namelen = sizeof at, .msg_iov = &out_parts[i], .msg_iovlen = 1};
    }
    for (;;) {
        for (int i = 0; i < BATCH; i++)
            in[i].msg_hdr.msg_namelen = sizeof at;
        int got = recvmmsg(fd, in, BATCH, MSG_WAITFORONE, NULL);
        for (int i = 0; i < got; i++) {
            room[i][2] |= 0x80; /* QR */
            out_parts[i] = (struct iovec){room[i], in[i].msg_len};
        }
        for (int sent = 0; sent < got;) {
            int more = sendmmsg(fd, out + sent, (unsigned)(got - sent), 0);
            sent += more > 0 ? more : 1;
        }
    }
}
