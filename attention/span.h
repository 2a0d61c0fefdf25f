/* Which keys of a run with rising positions a query sees when it sees all that are not behind it. */
#ifndef LONGHAUL_ATTENTION_SPAN_H
#define LONGHAUL_ATTENTION_SPAN_H

#include <stdint.h>

#include "attention/kernel.h"

/* The keys whose positions [n] are <= position. */
static inline struct attn_span causal_span(int64_t position, const int64_t *positions, int64_t n)
{
    int64_t low = 0, high = n;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (positions[middle] <= position)
            low = middle + 1;
        else
            high = middle;
    }
    return (struct attn_span){0, low};
}

#endif
