#include "attention/slots.h"

#include <string.h>

#include "attention/kernel.h"
#include "attention/rows.h"

static size_t row_bytes(const struct slots_shape *shape)
{
    return (size_t)shape->dim * dtype_size(shape->dtype);
}

static int64_t most_held(const struct slots_shape *shape, int ranks)
{
    return i64_ceil_div(shape->capacity, ranks);
}

/* Keys and values of so many rows of every head. */
static size_t rows_bytes(const struct slots_shape *shape, int64_t rows)
{
    return 2 * (size_t)shape->kv_heads * (size_t)rows * row_bytes(shape);
}

bool slots_bytes(const struct slots_shape *shape, int ranks, size_t *out)
{
    return size_mul(2 * (size_t)shape->kv_heads * row_bytes(shape), (size_t)most_held(shape, ranks), out);
}

size_t slots_stage_bytes(const struct slots_shape *shape, int ranks)
{
    return rows_bytes(shape, most_held(shape, ranks)) * (size_t)ranks;
}

int slots_create(struct slots *slots, const struct slots_shape *shape, const struct comm *group,
                 const struct device *device, struct error *err)
{
    *slots = (struct slots){.shape = *shape, .device = device, .rank = group->rank, .ranks = group->size};
    slots->held = most_held(shape, group->size);
    if (slots->held == 0)
        return 0;
    const size_t bytes = rows_bytes(shape, slots->held);
    if (!(slots->keys = device->alloc(bytes, "the slots of a layer", err)))
        return -1;
    slots->values = slots->keys + bytes / 2;
    return 0;
}

void slots_free(struct slots *slots)
{
    if (slots->device)
        slots->device->free(slots->keys);
    *slots = (struct slots){0};
}

void slots_reset(struct slots *slots)
{
    slots->count = 0;
}

static int64_t held_by(const struct slots *slots, int rank)
{
    return slots->count > rank ? (slots->count - rank - 1) / slots->ranks + 1 : 0;
}

int64_t slots_own(const struct slots *slots)
{
    return held_by(slots, slots->rank);
}

/* Rank `rank`'s rows, [key and value][kv_heads][held], to their places among all. */
static void spread(const struct slots *slots, int rank, const char *from, const struct rows_view *out)
{
    const size_t row = row_bytes(&slots->shape), head_bytes = (size_t)slots->held * row;
    for (int head = 0; head < slots->shape.kv_heads; head++) {
        const char *keys = from + (size_t)head * head_bytes;
        const char *values = keys + (size_t)slots->shape.kv_heads * head_bytes;
        for (int64_t i = 0; i < held_by(slots, rank); i++) {
            const size_t at = (size_t)head * out->head_bytes + (size_t)(i * slots->ranks + rank) * row;
            memcpy(out->keys + at, keys + (size_t)i * row, row);
            memcpy(out->values + at, values + (size_t)i * row, row);
        }
    }
}

int slots_gather(const struct slots *slots, const struct comm *group, const struct rows_view *out, void *stage,
                 struct error *err)
{
    if (slots->count == 0)
        return 0;
    const size_t bytes = rows_bytes(&slots->shape, slots->held);
    const char *all = slots->keys;
    if (slots->ranks > 1) {
        MPI_Datatype shard;
        if (comm_record_type(row_bytes(&slots->shape), "slots", &shard, err) < 0)
            return -1;
        const int rows = (int)(bytes / row_bytes(&slots->shape));
        const int status = comm_check(MPI_Allgather(slots->keys, rows, shard, stage, rows, shard, group->mpi),
                                      "putting the slots of all ranks together", err);
        MPI_Type_free(&shard);
        if (status < 0)
            return -1;
        all = stage;
    }
    for (int rank = 0; rank < slots->ranks; rank++)
        spread(slots, rank, all + (size_t)rank * bytes, out);
    return 0;
}

/* to = the n rows at `from`, made one. */
static void pool_rows(const struct slots *slots, enum pooling how, const char *from, int64_t n, char *to)
{
    const int dim = slots->shape.dim;
    float pooled[ATTN_MAX_DIM], row[ATTN_MAX_DIM];
    row_to_f32(slots->shape.dtype, from, pooled, dim);
    for (int64_t i = 1; i < n; i++) {
        row_to_f32(slots->shape.dtype, from + (size_t)i * row_bytes(&slots->shape), row, dim);
        for (int e = 0; e < dim; e++)
            pooled[e] = how == POOL_MEAN ? pooled[e] + row[e] : row[e] > pooled[e] ? row[e] : pooled[e];
    }
    for (int e = 0; e < dim && how == POOL_MEAN; e++)
        pooled[e] /= (float)n;
    row_from_f32(slots->shape.dtype, pooled, to, dim);
}

/* to = the convolution of the rows at `from`. */
static void convolve_rows(const struct slots *slots, const struct convolution *convolution, const char *from,
                          const float *offset, char *to)
{
    float slot[ATTN_MAX_DIM];
    convolution_apply(convolution, slots->shape.dtype, from, offset, slot);
    row_from_f32(slots->shape.dtype, slot, to, slots->shape.dim);
}

/* Slot `own` of this rank, in a kv head, by its recipe. */
static void make_slot(struct slots *slots, const struct keep *keep, const struct slots_source *source, int head,
                      int64_t own)
{
    const size_t row = row_bytes(&slots->shape);
    const struct slot_recipe *recipe =
        &keep->recipes[(int64_t)head * slots->shape.capacity + own * slots->ranks + slots->rank];
    const bool is_slot = recipe->first < keep->slots;
    const struct rows_view *view = is_slot ? &source->old : &source->leaving;
    const size_t from =
        (size_t)head * view->head_bytes + (size_t)(recipe->first - (is_slot ? 0 : keep->slots)) * row;
    const size_t to = (size_t)((int64_t)head * slots->held + own) * row;
    const enum pooling how = (enum pooling)keep->spec->pool;
    if (how == POOL_CONVOLUTION && !is_slot) {
        const float *offset = key_offset_of(source->key_offset, head, slots->shape.dim);
        convolve_rows(slots, &source->convolutions->keys, view->keys + from, offset, slots->keys + to);
        convolve_rows(slots, &source->convolutions->values, view->values + from, NULL, slots->values + to);
    } else {
        pool_rows(slots, how, view->keys + from, recipe->count, slots->keys + to);
        pool_rows(slots, how, view->values + from, recipe->count, slots->values + to);
    }
}

void slots_apply(struct slots *slots, const struct keep *keep, const struct slots_source *source)
{
    slots->count = keep->count;
    for (int head = 0; head < slots->shape.kv_heads; head++)
        for (int64_t own = 0; own < slots_own(slots); own++)
            make_slot(slots, keep, source, head, own);
}
