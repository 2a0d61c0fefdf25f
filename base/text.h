/* Bytes with a length. */
#ifndef LONGHAUL_BASE_TEXT_H
#define LONGHAUL_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* May hold NULs, is not terminated unless its maker says so. */
struct text {
    const char *bytes;
    size_t length;
};

/* True when the text equals the C string. */
bool text_equals(struct text text, const char *string);

#endif
