#include "io/store_text.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

/* A NUL is a character of UTF-8, but none of what is kept here. */
static struct utf8_piece piece_at(const char *bytes, size_t left)
{
    const struct utf8_piece piece = utf8_piece(bytes, left);
    return (struct utf8_piece){piece.length, piece.valid && bytes[0] != '\0'};
}

char *store_text_clean(struct arena *arena, const char *bytes, size_t length, size_t *replaced, struct error *err)
{
    const size_t of_replacement = sizeof UTF8_REPLACEMENT - 1;
    *replaced = 0;
    size_t room = 1;
    for (size_t i = 0; i < length;) {
        const struct utf8_piece piece = piece_at(bytes + i, length - i);
        room += piece.valid ? piece.length : of_replacement;
        *replaced += !piece.valid;
        i += piece.length;
    }
    char *clean = arena_take(arena, room, 1, err), *out = clean;
    for (size_t i = 0; clean && i < length;) {
        const struct utf8_piece piece = piece_at(bytes + i, length - i);
        const size_t n = piece.valid ? piece.length : of_replacement;
        memcpy(out, piece.valid ? bytes + i : UTF8_REPLACEMENT, n);
        out += n;
        i += piece.length;
    }
    return clean;
}

char *store_name_encode(struct arena *arena, const char *name, struct error *err)
{
    size_t length = name ? strlen(name) : 0;
    char *encoded = arena_take(arena, 4 * length + 1, 1, err), *out = encoded;
    for (size_t i = 0; encoded && i < length;) {
        const struct utf8_piece piece = piece_at(name + i, length - i);
        const bool plain = piece.valid && name[i] != '\\';
        for (size_t end = i + piece.length; i < end; i++) {
            if (plain)
                *out++ = name[i];
            else
                out += sprintf(out, "\\x%02x", (unsigned char)name[i]);
        }
    }
    return encoded;
}

char *store_name_decode(struct arena *arena, const char *encoded, struct error *err)
{
    char *name = arena_string(arena, encoded, err);
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
