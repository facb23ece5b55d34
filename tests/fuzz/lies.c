/* libFuzzer: whatever numbers the published files hold, nothing is read or written out of bounds, and a reply keeps its limit.
 *
 * `fuzz_lies CORPUS`; EDGEDNS_WORLD names the world's file. An input is a number of lies, eleven octets each, then a question.
 * A section that is cut short is poisoned behind its new end, so that a read there is seen. */
#include "exchange.h"
#include "wellformed.h"

#include <sanitizer/asan_interface.h>

enum { LIES = 8, LIE = 11, FILLED_MOST = 2000 };
enum { CUT_SHORT = 0x80, FILL = 0x40 };
static uint8_t *truth[SECTION_COUNT];
static size_t counted[SECTION_COUNT];
struct lie {
    size_t section, first, last; /* the places that may hold wrong numbers: first to last - 1 */
};

/* Nothing from this place of a section on is to be read. Its block ends with a whole word more, as shadow is kept by words. */
static void poison(size_t section, size_t from)
{
    size_t width = SECTIONS[section].width;
    size_t end = whole_words(counted[section] * width) + 8;
    ASAN_POISON_MEMORY_REGION((uint8_t *)section_at(section)->at + from * width, end - from * width);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    load_world(must(getenv("EDGEDNS_WORLD")));
    for (size_t i = 0; i < SECTION_COUNT; i++) {
        counted[i] = section_at(i)->count;
        size_t size = counted[i] * SECTIONS[i].width;
        truth[i] = section_at(i)->at;
        section_at(i)->at = must(malloc(whole_words(size) + 8));
        memcpy(section_at(i)->at, truth[i], size);
        poison(i, counted[i]);
    }
    return 0;
}

/* Octets: section; how, and the step of what is filled; place and number (u32, as they are, then modulo the section's size). */
static struct lie tell(const uint8_t *octets)
{
    size_t section = octets[0] % SECTION_COUNT, width = SECTIONS[section].width, step = 1 + (octets[1] & 0x0F);
    table *lying = section_at(section);
    uint32_t place, number;
    memcpy(&place, octets + 2, 4);
    memcpy(&number, octets + 6, 4);
    uint64_t value = octets[10] & 1 ? (uint64_t)number << 32 | place : number;
    struct lie told = {section, place % (counted[section] + 1), 0};
    if (octets[1] & CUT_SHORT) {
        poison(section, told.first);
        lying->count = lying->count < told.first ? lying->count : told.first;
        return told;
    }
    size_t most = octets[1] & FILL ? FILLED_MOST : 1;
    for (size_t at = told.first; at < lying->count && most > 0; at += step, most--) {
        memcpy((uint8_t *)lying->at + at * width, &value, width);
        told.last = at + 1;
    }
    return told;
}

static void tell_the_truth(struct lie told)
{
    table *lying = section_at(told.section);
    size_t width = SECTIONS[told.section].width, from = told.first * width;
    ASAN_UNPOISON_MEMORY_REGION(lying->at, counted[told.section] * width);
    lying->count = counted[told.section];
    if (told.first < told.last)
        memcpy((uint8_t *)lying->at + from, truth[told.section] + from, told.last * width - from);
}

static void ask(const question *asked)
{
    static uint8_t octets[LARGEST];
    long made = answer(asked, octets);
    if (made > 0)
        hold_header(asked->packet, (span){octets, (size_t)made}, asked->tcp ? LARGEST : UDP_PAYLOAD);
    loop *l = serve_group(asked);
    for (int i = 0; i < l->ready; i++)
        hold_header(asked->packet, sent(l, i), UDP_PAYLOAD);
    keep_counts(l);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    size_t lies = size ? input[0] % (LIES + 1) : 0;
    struct lie told[LIES];
    question asked;
    if (size < 1 + lies * LIE || !read_input((span){input + 1 + lies * LIE, size - 1 - lies * LIE}, &asked))
        return -1;
    for (size_t i = 0; i < lies; i++)
        told[i] = tell(input + 1 + i * LIE);
    if (of_form(&served.w)) {
        memcpy(&served.w.n, served.w.number.at, sizeof(numbers));
        ask(&asked);
    }
    for (size_t i = 0; i < lies; i++)
        tell_the_truth(told[i]);
    return 0;
}
