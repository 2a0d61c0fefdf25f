#include "io/store_text.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What stands at the front of some bytes: a character, or the longest piece that could have begun one. */
struct piece {
    size_t length;
    bool valid;
};

/* The well-formed sequences of Unicode 15, table 3-7: by first byte, the range of the second and the length. */
static const struct {
    unsigned char first, last, second_low, second_high, length;
} sequences[] = {
    {0x01, 0x7f, 0x00, 0x00, 1}, {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
    {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
    {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
};

static struct piece piece_at(const unsigned char *bytes, size_t left)
{
    for (size_t s = 0; s < sizeof sequences / sizeof *sequences; s++) {
        if (bytes[0] < sequences[s].first || bytes[0] > sequences[s].last)
            continue;
        for (size_t i = 1; i < sequences[s].length; i++) {
            unsigned char low = i == 1 ? sequences[s].second_low : 0x80;
            unsigned char high = i == 1 ? sequences[s].second_high : 0xbf;
            if (i >= left || bytes[i] < low || bytes[i] > high)
                return (struct piece){i, false};
        }
        return (struct piece){sequences[s].length, true};
    }
    return (struct piece){1, false};
}

char *store_text_clean(struct store_arena *arena, const char *bytes, size_t length, size_t *replaced,
                       struct error *err)
{
    static const char replacement[] = "\xef\xbf\xbd";
    const unsigned char *in = (const unsigned char *)bytes;
    *replaced = 0;
    size_t room = 1;
    for (size_t i = 0; i < length;) {
        struct piece piece = piece_at(in + i, length - i);
        room += piece.valid ? piece.length : 3;
        *replaced += !piece.valid;
        i += piece.length;
    }
    char *clean = store_arena_take(arena, room, 1, err), *out = clean;
    for (size_t i = 0; clean && i < length;) {
        struct piece piece = piece_at(in + i, length - i);
        memcpy(out, piece.valid ? bytes + i : replacement, piece.valid ? piece.length : 3);
        out += piece.valid ? piece.length : 3;
        i += piece.length;
    }
    return clean;
}

char *store_name_encode(struct store_arena *arena, const char *name, struct error *err)
{
    size_t length = name ? strlen(name) : 0;
    char *encoded = store_arena_take(arena, 4 * length + 1, 1, err), *out = encoded;
    const unsigned char *in = (const unsigned char *)name;
    for (size_t i = 0; encoded && i < length;) {
        struct piece piece = piece_at(in + i, length - i);
        bool plain = piece.valid && in[i] != '\\';
        for (size_t end = i + piece.length; i < end; i++) {
            if (plain)
                *out++ = name[i];
            else
                out += sprintf(out, "\\x%02x", in[i]);
        }
    }
    return encoded;
}

char *store_name_decode(struct store_arena *arena, const char *encoded, struct error *err)
{
    char *name = store_arena_string(arena, encoded, err);
    char *out = name;
    for (const char *in = name; in && *in;) {
        if (in[0] == '\\' && in[1] == 'x' && isxdigit((unsigned char)in[2]) && isxdigit((unsigned char)in[3])) {
            char digits[] = {in[2], in[3], '\0'};
            *out++ = (char)strtoul(digits, NULL, 16);
            in += 4;
        } else {
            *out++ = *in++;
        }
    }
    if (name)
        *out = '\0';
    return name;
}
