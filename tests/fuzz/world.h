/* The native engine without an interpreter: all of _fastpath.c, and a world to answer from that worlds.py wrote to a file.
 *
 * Each section has a block of its own, so that AddressSanitizer sees a read behind its end. */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "../../edgedns/engine/_fastpath.c"

#include <stdio.h>
#include <stdlib.h>

static Native served; /* nothing of it but `w` is looked at by what is called here */

static size_t whole_words(size_t octets) { return (octets + 7) & ~(size_t)7; }

static void *must(void *made)
{
    if (!made)
        abort();
    return made;
}

static table *section_at(size_t number) { return (table *)((char *)&served.w + SECTIONS[number].place); }

static void keep_section(const char *name, const uint8_t *octets, size_t size)
{
    for (size_t i = 0; i < SECTION_COUNT; i++)
        if (!strcmp(SECTIONS[i].name, name)) {
            void *own = must(malloc(size + !size));
            memcpy(own, octets, size);
            *section_at(i) = (table){own, size / SECTIONS[i].width};
        }
}

static uint8_t *read_file(const char *path, size_t *size)
{
    FILE *file = must(fopen(path, "rb"));
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    uint8_t *octets = must(malloc(*size + 1));
    if (fread(octets, 1, *size, file) != *size)
        abort();
    fclose(file);
    return octets;
}

/* The file: for each section its name (24 octets, zero padded), its size (u64, little-endian) and its octets. */
static void load_world(const char *path)
{
    size_t size, at = 0;
    uint8_t *file = read_file(path, &size);
    while (at + 32 <= size) {
        uint64_t octets;
        memcpy(&octets, file + at + 24, 8);
        keep_section((const char *)file + at, file + at + 32, octets);
        at += 32 + octets;
    }
    free(file);
    for (size_t i = 0; i < SECTION_COUNT; i++)
        must(section_at(i)->at);
    if (!of_form(&served.w))
        abort();
    memcpy(&served.w.n, served.w.number.at, sizeof(numbers));
    make_crc();
}
