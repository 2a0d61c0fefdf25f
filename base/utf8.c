#include "base/utf8.h"

#include <string.h>

struct utf8_piece utf8_piece(const char *bytes, size_t left)
{
    const unsigned char *p = (const unsigned char *)bytes;
    if (p[0] < 0x80)
        return (struct utf8_piece){1, true};
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return (struct utf8_piece){1, false};
    const size_t length = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    /* The second byte is what tells overlong forms, surrogates and code points past the last from the rest. */
    unsigned char low = p[0] == 0xe0 ? 0xa0 : p[0] == 0xf0 ? 0x90 : 0x80;
    unsigned char high = p[0] == 0xed ? 0x9f : p[0] == 0xf4 ? 0x8f : 0xbf;
    for (size_t i = 1; i < length; i++) {
        if (i >= left || p[i] < low || p[i] > high)
            return (struct utf8_piece){i, false};
        low = 0x80;
        high = 0xbf;
    }
    return (struct utf8_piece){length, true};
}

static bool eight_are_ascii(const char *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return (word & 0x8080808080808080u) == 0;
}

size_t utf8_valid_prefix(struct text text)
{
    size_t at = 0;
    while (at < text.length) {
        if (text.length - at >= 8 && eight_are_ascii(text.bytes + at)) {
            at += 8;
            continue;
        }
        const struct utf8_piece piece = utf8_piece(text.bytes + at, text.length - at);
        if (!piece.valid)
            break;
        at += piece.length;
    }
    return at;
}

int64_t utf8_characters(struct text text)
{
    int64_t count = 0;
    for (size_t i = 0; i < text.length; i++)
        count += ((unsigned char)text.bytes[i] & 0xc0) != 0x80;
    return count;
}

uint32_t utf8_decode(const char *bytes, size_t *length)
{
    const unsigned char *p = (const unsigned char *)bytes;
    if (p[0] < 0x80) {
        *length = 1;
        return p[0];
    }
    if (p[0] < 0xe0) {
        *length = 2;
        return (uint32_t)(p[0] & 0x1f) << 6 | (p[1] & 0x3f);
    }
    if (p[0] < 0xf0) {
        *length = 3;
        return (uint32_t)(p[0] & 0x0f) << 12 | (uint32_t)(p[1] & 0x3f) << 6 | (p[2] & 0x3f);
    }
    *length = 4;
    return (uint32_t)(p[0] & 0x07) << 18 | (uint32_t)(p[1] & 0x3f) << 12 | (uint32_t)(p[2] & 0x3f) << 6 |
           (p[3] & 0x3f);
}

size_t utf8_encode(uint32_t code, char *out)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xe0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3f));
        out[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3f));
    out[2] = (char)(0x80 | (code >> 6 & 0x3f));
    out[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}
