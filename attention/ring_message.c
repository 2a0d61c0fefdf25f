#include "attention/ring_message.h"

#include "attention/rows.h"

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

void ring_message_positions(struct ring_message *message, const int64_t *positions)
{
    if (message->tokens > 0)
        memcpy(message->positions, positions, (size_t)message->tokens * sizeof *positions);
}

static char *tile_at(const struct ring_message *message, int kv_head, int64_t tile)
{
    return message->packed + (size_t)(kv_head * message->tiles + tile) * message->tile_bytes;
}

const void *ring_message_run(const struct ring_message *message, int kv_head, int64_t first_key)
{
    return tile_at(message, kv_head, first_key / ATTN_KEY_TILE);
}

/* The angles of a tile's keys, which all heads share, and the rotated keys of one head. */
struct pack_scratch {
    float cosines[ATTN_KEY_TILE][ATTN_MAX_DIM / 2], sines[ATTN_KEY_TILE][ATTN_MAX_DIM / 2];
    float raw[ATTN_MAX_DIM];
    float keys[ATTN_KEY_TILE * ATTN_MAX_DIM];
};

/* A key of a tile and where it lies. */
struct key_place {
    int head, index;
    const void *raw;
};

size_t ring_message_scratch_bytes(void)
{
    return sizeof(struct pack_scratch);
}

/* One key of a head, rotated. Of its offset the part that rotation leaves where it is goes off again: it adds the
 * same to all scores of a query, which the softmax does not see, and the packed key is rounded more finely. */
static void rotate_key(const struct ring_options *options, const struct ring_message_source *source,
                       const struct key_place *place, struct pack_scratch *s)
{
    const int dim = options->dim;
    const float *offset = memory_key_offset(source->memory, source->layer, place->head);
    float *key = s->keys + place->index * dim;
    row_to_f32(source->memory->shape.dtype, place->raw, s->raw, dim);
    for (int e = 0; offset && e < dim; e++)
        s->raw[e] += offset[e];
    rope_rotate(source->rope, s->cosines[place->index], s->sines[place->index], s->raw, key, dim, 1.0f);
    for (int e = 0; offset && e < dim; e++)
        key[e] -= offset[e] * source->still[e];
}

void ring_message_pack_tile(const struct ring_message *message, const struct ring_options *options,
                            const struct ring_message_source *source, int64_t tile, void *scratch)
{
    struct pack_scratch *s = scratch;
    const struct memory *memory = source->memory;
    const int dim = options->dim;
    const int64_t first = source->first + tile * ATTN_KEY_TILE;
    const int n = (int)i64_min(ATTN_KEY_TILE, message->tokens - tile * ATTN_KEY_TILE);
    const size_t row_bytes = (size_t)dim * dtype_size(memory->shape.dtype);
    for (int i = 0; i < n; i++)
        rope_angles(source->rope, memory->positions[first + i], s->cosines[i], s->sines[i]);
    for (int head = 0; head < options->kv_heads; head++) {
        const char *k = (const char *)memory_keys(memory, source->layer, head) + (size_t)first * row_bytes;
        const char *v = (const char *)memory_values(memory, source->layer, head) + (size_t)first * row_bytes;
        for (int i = 0; i < n; i++)
            rotate_key(options, source, &(struct key_place){head, i, k + (size_t)i * row_bytes}, s);
        options->kernel->pack(tile_at(message, head, tile), s->keys, v, n, dim);
    }
}
