/* Laying out parts of one block of memory, each aligned to ATTN_ALIGN. */
#ifndef LONGHAUL_ATTENTION_LAYOUT_H
#define LONGHAUL_ATTENTION_LAYOUT_H

#include <stdbool.h>

#include "attention/kernel.h"

/* *at = where count items of `size` bytes go, behind the *total bytes so far; false where the sum overflows. */
static inline bool layout_reserve(size_t *total, size_t count, size_t size, size_t *at)
{
    size_t bytes;
    *at = *total;
    return size_mul(count, size, &bytes) && size_add(bytes, ATTN_ALIGN - 1, &bytes) &&
           size_add(*total, bytes / ATTN_ALIGN * ATTN_ALIGN, total);
}

#endif
