/* Packing: raw keys and values become a tile that a kernel reads; keys are rotated on the way. */
#ifndef LONGHAUL_ATTENTION_PACK_H
#define LONGHAUL_ATTENTION_PACK_H

#include "attention/kernel.h"
#include "attention/position.h"

struct pack_rows {
    const struct attn_kernel *kernel;
    const struct rope *rope;
    const void *keys, *values; /* [n][dim] in the kernel's dtype, raw */
    const float *key_offset;   /* [dim], added to every key, or NULL */
    int64_t first_position;    /* row i is at first_position + i * step */
    int64_t step;              /* 1, or 0: all at one position */
    int n, dim;                /* n <= ATTN_KEY_TILE */
};

/* tile: kernel->tile_bytes(dim). */
void pack_tile(const struct pack_rows *rows, void *tile);

#endif
