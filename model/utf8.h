/* UTF-8, strictly: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef LONGHAUL_MODEL_UTF8_H
#define LONGHAUL_MODEL_UTF8_H

#include <stddef.h>
#include <stdint.h>

#include "base/bundle.h"

/* Bytes of the longest valid beginning of the text; text.length when all of it is valid. */
size_t utf8_valid_prefix(struct text text);

/* The code point at the start of valid, non-empty text; *length = its bytes. */
uint32_t utf8_decode(const char *bytes, size_t *length);

/* Write a code point to out [4]; returns its bytes. */
size_t utf8_encode(uint32_t code, char *out);

#endif
