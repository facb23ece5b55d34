/* libFuzzer: any octets from anyone over a good world get silence, what is for Python, or a well-formed reply within limits.
 *
 * `fuzz_packets CORPUS`; EDGEDNS_WORLD names the world's file. native.py's tests make corpus and world. */
#include "exchange.h"
#include "wellformed.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    load_world(must(getenv("EDGEDNS_WORLD")));
    return 0;
}

/* Each of the loop's replies is the whole one, or cut to its question; what is sent, limited and handed over adds up. */
static void hold_group(const question *asked, span whole_reply)
{
    loop *l = serve_group(asked);
    hold_that(l->ready + (int)l->fixed[SILENT] + l->handed_count == TIMES, "each message has one end");
    hold_that(l->handed_count == 0 || l->ready == 0, "one packet, one verdict");
    for (int i = 0; i < l->ready; i++) {
        span reply = sent(l, i);
        hold_well_formed(asked->packet, reply, UDP_PAYLOAD);
        hold_that(same(reply, whole_reply) || (reply.at[2] & TC && reply.size <= whole_reply.size), "the reply or a slip");
    }
    keep_counts(l);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    static uint8_t octets[LARGEST];
    question asked;
    if (!read_input((span){input, size}, &asked))
        return -1;
    long made = answer(&asked, octets);
    hold_that((made == SILENCE) == (asked.packet.size < HEADER || (asked.packet.at[2] & QR)), "silence");
    if (made > 0)
        hold_well_formed(asked.packet, (span){octets, (size_t)made}, asked.tcp ? LARGEST : UDP_PAYLOAD);
    asked.tcp = false;
    made = answer(&asked, octets);
    hold_group(&asked, (span){octets, made > 0 ? (size_t)made : 0});
    return 0;
}
