/* The message that goes round the ring: one rank's shard of one layer, ready for the kernel.
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
struct message {
    int64_t tokens, tiles;
    char *start;
    size_t bytes;
    int64_t *positions;
    char *packed;
    size_t tile_bytes;
};

/* Bytes of a message of options->max_shard tokens; false where they cannot be counted. */
bool message_bytes_max(const struct ring_options *options, size_t *out);

/* The view of a message of so many tokens at `start`, which is aligned to ATTN_ALIGN. */
struct message message_at(const struct ring_options *options, void *start, int64_t tokens);

void message_positions(struct message *message, const int64_t *positions);

/* The packed run of a kv head from `first_key` on, a multiple of ATTN_KEY_TILE. */
const void *message_run(const struct message *message, int kv_head, int64_t first_key);

/* Where the keys of a tile are taken from. */
struct message_source {
    const struct memory *memory;
    const struct rope *rope;
    int layer;
    int64_t tile;
    const float *still; /* [dim] 1 where rotation hardly moves an element, else 0 */
};

/* Rotate and pack one tile of every kv head. scratch: message_scratch_bytes(), aligned. Any thread. */
void message_pack_tile(const struct message *message, const struct ring_options *options,
                       const struct message_source *source, void *scratch);
size_t message_scratch_bytes(void);

#endif
