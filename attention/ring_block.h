/* The queries of one rank's block of a segment, rotated, with the online softmax of each: what is attended with,
 * and what goes round in pass-Q.
 *
 *     positions [tokens] int64 | o [rows][dim] f32 | m [rows] f32 | l [rows] f32 | q [rows][dim] of the kernel's
 * dtype
 *
 * each padded to ATTN_ALIGN; rows are [kv_heads][tokens][group]. It holds no pointers and its size follows from the
 * number of tokens. Private to the ring.
 */
#ifndef LONGHAUL_ATTENTION_RING_BLOCK_H
#define LONGHAUL_ATTENTION_RING_BLOCK_H

#include <stdbool.h>

#include "attention/ring.h"

/* A view of a block in a buffer; the buffer is borrowed. */
struct ring_block {
    int64_t tokens;
    char *start;
    size_t bytes;
    int64_t *positions;
    struct attn_state state;
    char *q;
};

/* Bytes of a block of that many tokens; false where they cannot be counted. */
bool ring_block_bytes(const struct ring_options *options, int64_t tokens, size_t *out);

/* The view of a block of so many tokens at `start`, which is aligned to ATTN_ALIGN. */
struct ring_block ring_block_at(const struct ring_options *options, void *start, int64_t tokens);

#endif
