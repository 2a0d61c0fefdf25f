#include "attention/ring_message.h"

static size_t positions_bytes(int64_t tokens)
{
    return (size_t)i64_round_up(tokens * (int64_t)sizeof(int64_t), ATTN_ALIGN);
}

bool ring_message_bytes(const struct ring_options *options, int64_t tokens, size_t *out)
{
    size_t bytes = options->kernel->tile_bytes(options->dim);
    return tokens <= INT64_MAX / 2 / (int64_t)sizeof(int64_t) &&
           size_mul(bytes, (size_t)i64_ceil_div(tokens, ATTN_KEY_TILE), &bytes) &&
           size_mul(bytes, (size_t)options->kv_heads, &bytes) && size_add(bytes, positions_bytes(tokens), out);
}

struct ring_message ring_message_at(const struct ring_options *options, void *start, int64_t tokens)
{
    const size_t head = positions_bytes(tokens), tile_bytes = options->kernel->tile_bytes(options->dim);
    const int64_t tiles = i64_ceil_div(tokens, ATTN_KEY_TILE);
    return (struct ring_message){
        .tokens = tokens,
        .tiles = tiles,
        .start = start,
        .bytes = head + (size_t)options->kv_heads * (size_t)tiles * tile_bytes,
        .positions = start,
        .packed = (char *)start + head,
        .tile_bytes = tile_bytes,
    };
}

void *ring_message_run(const struct ring_message *message, int kv_head, int64_t first_key)
{
    const int64_t tile = kv_head * message->tiles + first_key / ATTN_KEY_TILE;
    return message->packed + (size_t)tile * message->tile_bytes;
}
