#include "attention/policy.h"

/* The number of positions that are <= position. */
static struct attn_span full_visible(int layer, int64_t position, const int64_t *positions, int64_t n)
{
    (void)layer;
    int64_t low = 0, high = n;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (positions[middle] <= position)
            low = middle + 1;
        else
            high = middle;
    }
    return (struct attn_span){0, low};
}

static int full_keep(int layer, struct memory *memory, struct error *err)
{
    (void)layer, (void)memory, (void)err;
    return 0;
}

const struct policy policy_full = {.name = "full", .visible = full_visible, .keep = full_keep};
