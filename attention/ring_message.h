/* Packed keys and values: a piece of one rank's shard of one layer, ready for the kernel, which goes round in
 * pass-KV.
 *
 *     positions [tokens] int64, padded to ATTN_ALIGN | packed tiles [kv_heads][tiles][kernel->tile_bytes]
 *
 * It holds no pointers and its size follows from the number of tokens. Private to the ring.
 */
#ifndef LONGHAUL_ATTENTION_RING_MESSAGE_H
#define LONGHAUL_ATTENTION_RING_MESSAGE_H

#include <stdbool.h>

#include "attention/ring.h"

/* A view of a message in a buffer; the buffer is borrowed. */
struct ring_message {
    int64_t tokens, tiles;
    char *start;
    size_t bytes;
    int64_t *positions;
    char *packed;
    size_t tile_bytes;
};

/* Bytes of a message of that many tokens; false where they cannot be counted. */
bool ring_message_bytes(const struct ring_options *options, int64_t tokens, size_t *out);

/* The view of a message of so many tokens at `start`, which is aligned to ATTN_ALIGN. */
struct ring_message ring_message_at(const struct ring_options *options, void *start, int64_t tokens);

/* The packed run of a kv head from `first_key` on, a multiple of ATTN_KEY_TILE. */
void *ring_message_run(const struct ring_message *message, int kv_head, int64_t first_key);

/* Where the keys of a message are taken from. */
struct ring_message_source {
    const struct memory *memory;
    const struct rope *rope;
    const float *slow_cosine; /* [dim] what rotation multiplies an element by where it hardly moves it, else 0 */
    int layer;
    int64_t first; /* index in memory of the message's first token */
};

#endif
