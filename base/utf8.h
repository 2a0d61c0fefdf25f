/* UTF-8, strictly: no overlong forms, no surrogates, nothing above U+10FFFF (Unicode 15, table 3-7). */
#ifndef LONGHAUL_BASE_UTF8_H
#define LONGHAUL_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/text.h"

/* What stands for a piece that is no character: U+FFFD. */
#define UTF8_REPLACEMENT "\xef\xbf\xbd"

/* A character, or the longest piece that could have begun one (a maximal subpart, section 3.9) and did not. */
struct utf8_piece {
    size_t length;
    bool valid;
};

/* The piece at the front of bytes [left], left > 0. */
struct utf8_piece utf8_piece(const char *bytes, size_t left);

/* Bytes of the longest valid beginning of the text; text.length when all of it is valid. */
size_t utf8_valid_prefix(struct text text);

/* Characters of valid text. */
int64_t utf8_characters(struct text text);

/* The code point at the start of valid, non-empty text; *length = its bytes. */
uint32_t utf8_decode(const char *bytes, size_t *length);

/* Write a code point to out [4]; returns its bytes. */
size_t utf8_encode(uint32_t code, char *out);

#endif
