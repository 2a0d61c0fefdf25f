#include "attention/blocks.h"

#include <string.h>

#include "attention/kernel.h"
#include "attention/rows.h"

static size_t run_bytes(const struct blocks_shape *shape)
{
    return (size_t)BLOCK_TOKENS * (size_t)shape->dim * dtype_size(shape->dtype);
}

static size_t representative_floats(const struct blocks_shape *shape)
{
    return (size_t)shape->heads * (size_t)shape->dim;
}

size_t blocks_record_bytes(const struct blocks_shape *shape)
{
    return 2 * (size_t)shape->kv_heads * run_bytes(shape);
}

size_t blocks_keys_at(const struct blocks_shape *shape, int kv_head)
{
    return (size_t)kv_head * run_bytes(shape);
}

size_t blocks_values_at(const struct blocks_shape *shape, int kv_head)
{
    return (size_t)(shape->kv_heads + kv_head) * run_bytes(shape);
}

size_t blocks_bytes(const struct blocks_shape *shape, int ranks)
{
    return (size_t)i64_ceil_div(shape->capacity, ranks) *
           (blocks_record_bytes(shape) + representative_floats(shape) * sizeof(float));
}

/* ---- life ---- */

int blocks_create(struct blocks *blocks, const struct blocks_shape *shape, const struct comm *group,
                  const struct device *device, struct error *err)
{
    *blocks = (struct blocks){.shape = *shape, .device = device, .rank = group->rank, .ranks = group->size};
    blocks->held = i64_ceil_div(shape->capacity, group->size);
    const size_t records = (size_t)blocks->held * blocks_record_bytes(shape);
    if (!(blocks->records = device->alloc(blocks_bytes(shape, group->size), "blocks of the past", err)))
        return -1;
    blocks->representatives = (void *)(blocks->records + records);
    return 0;
}

void blocks_free(struct blocks *blocks)
{
    if (blocks->device)
        blocks->device->free(blocks->records);
}

void blocks_reset(struct blocks *blocks)
{
    blocks->count = 0;
}

size_t blocks_resident(const struct blocks *blocks)
{
    const int64_t own = blocks->count > blocks->rank ? (blocks->count - blocks->rank - 1) / blocks->ranks + 1 : 0;
    return (size_t)i64_min(own, blocks->held) * blocks_record_bytes(&blocks->shape);
}

/* ---- places ---- */

int64_t blocks_oldest(const struct blocks *blocks)
{
    return i64_max(0, blocks->count - blocks->shape.capacity);
}

static int64_t place_of(const struct blocks *blocks, int64_t block)
{
    return block / blocks->ranks % blocks->held;
}

char *blocks_record(const struct blocks *blocks, int64_t block)
{
    return blocks->records + (size_t)place_of(blocks, block) * blocks_record_bytes(&blocks->shape);
}

static float *representative(const struct blocks *blocks, int64_t block, int head)
{
    return blocks->representatives + (size_t)place_of(blocks, block) * representative_floats(&blocks->shape) +
           (size_t)head * (size_t)blocks->shape.dim;
}

/* ---- what comes ---- */

/* The BLOCK_VOTED tokens with most attention; of equal ones the earlier. */
static void vote(const int64_t *attention, int *voted)
{
    for (int i = 0; i < BLOCK_VOTED; i++) {
        voted[i] = -1;
        for (int t = 0; t < BLOCK_TOKENS; t++) {
            bool taken = false;
            for (int j = 0; j < i; j++)
                taken = taken || voted[j] == t;
            if (!taken && (voted[i] < 0 || attention[t] > attention[voted[i]]))
                voted[i] = t;
        }
    }
}

static void represent(struct blocks *blocks, int64_t block, int head, const int64_t *attention)
{
    const struct blocks_shape *s = &blocks->shape;
    const char *keys = blocks_record(blocks, block) + blocks_keys_at(s, head / (s->heads / s->kv_heads));
    float *out = representative(blocks, block, head), key[ATTN_MAX_DIM];
    int voted[BLOCK_VOTED];
    vote(attention, voted);
    memset(out, 0, (size_t)s->dim * sizeof *out);
    for (int i = 0; i < BLOCK_VOTED; i++) {
        row_to_f32(s->dtype, keys + (size_t)voted[i] * (size_t)s->dim * dtype_size(s->dtype), key, s->dim);
        for (int e = 0; e < s->dim; e++)
            out[e] += key[e] / BLOCK_VOTED;
    }
}

void blocks_append(struct blocks *blocks, const struct near *near, int64_t first, const int64_t *attention,
                   int64_t stride)
{
    const struct blocks_shape *s = &blocks->shape;
    const int64_t block = blocks->count++;
    if (block % blocks->ranks != blocks->rank)
        return;
    char *record = blocks_record(blocks, block);
    for (int head = 0; head < s->kv_heads; head++) {
        memcpy(record + blocks_keys_at(s, head), near_keys(near, head, first), run_bytes(s));
        memcpy(record + blocks_values_at(s, head), near_values(near, head, first), run_bytes(s));
    }
    for (int head = 0; head < s->heads; head++)
        represent(blocks, block, head, attention + head * stride);
}

void blocks_score(const struct blocks *blocks, const float *q, double *scores)
{
    const int64_t oldest = blocks_oldest(blocks), n = (int64_t)representative_floats(&blocks->shape);
    for (int64_t block = oldest; block < blocks->count; block++) {
        double sum = 0;
        const float *of = representative(blocks, block, 0);
        const int64_t own = block % blocks->ranks == blocks->rank ? n : 0;
        for (int64_t e = 0; e < own; e++)
            sum += (double)q[e] * (double)of[e];
        scores[block - oldest] = sum;
    }
}
