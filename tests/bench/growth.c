/* growth WORLD QUERIES ROUNDS: answers queries (u16 length and octets each) with the native engine, as its loop does, in groups.
 *
 * Under callgrind with --toggle-collect=answer_all it gives the instructions of answering alone; else it prints nanoseconds of
 * CPU a query. The world's file is as tests/fuzz/worlds.py writes it. */
#include "../fuzz/world.h"

static loop served_by;
static span queries[1 << 16];

static size_t read_queries(const char *path)
{
    size_t size, count = 0;
    const uint8_t *file = read_file(path, &size);
    for (size_t at = 0; at + 2 <= size && count < sizeof queries / sizeof queries[0];) {
        size_t length = (size_t)file[at] | (size_t)file[at + 1] << 8;
        queries[count++] = (span){file + at + 2, length};
        at += 2 + length;
    }
    return count;
}

static void prepare(loop *l)
{
    static const uint8_t client[4] = {192, 0, 2, 1};
    l->native = &served, l->now = 1790000000.0;
    l->dice[0] = 1, l->dice[1] = 5, l->dice[2] = 32;
    for (int i = 0; i < BATCH; i++) {
        l->peer[i].sin6_family = AF_INET;
        memcpy(&((struct sockaddr_in *)&l->peer[i])->sin_addr, client, sizeof client);
        l->in[i].msg_hdr = (struct msghdr){.msg_name = &l->peer[i], .msg_iov = &l->in_part[i], .msg_iovlen = 1};
    }
}

/* Called by this name, whatever the compiler knows of its arguments. */
__attribute__((noipa)) static int answer_all(loop *l, size_t count)
{
    int replies = 0;
    for (size_t first = 0; first + GROUP <= count; first += GROUP) {
        for (int i = 0; i < GROUP; i++) {
            l->in_part[i] = (struct iovec){(void *)queries[first + (size_t)i].at, RECEIVE_ROOM};
            l->in[i].msg_len = (unsigned)queries[first + (size_t)i].size;
        }
        answer_group(l, 0, GROUP);
        replies += l->ready;
        l->filled = 0;
        l->ready = l->handed_count = 0;
        keep_counts(l);
    }
    return replies;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    load_world(argv[1]);
    size_t count = read_queries(argv[2]);
    loop *l = &served_by;
    prepare(l);
    struct timespec since, until;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &since);
    int replies = 0, rounds = atoi(argv[3]);
    for (int i = 0; i < rounds; i++)
        replies += answer_all(l, count);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &until);
    double spent = (double)(until.tv_sec - since.tv_sec) * 1e9 + (double)(until.tv_nsec - since.tv_nsec);
    printf("%d %.1f\n", replies, spent / (replies ? replies : 1));
    return 0;
}
