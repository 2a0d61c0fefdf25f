#include "attention/memory.h"

#include <stdlib.h>
#include <string.h>

#include "attention/rows.h"

int memory_bytes(const struct memory_shape *shape, struct memory_sizes *out, struct error *err)
{
    out->token = 2 * dtype_size(shape->dtype);
    if (!size_mul(out->token, (size_t)shape->layers, &out->token) ||
        !size_mul(out->token, (size_t)shape->kv_heads, &out->token) ||
        !size_mul(out->token, (size_t)shape->dim, &out->token) ||
        !size_mul(out->token, (size_t)shape->capacity, &out->keys) ||
        !size_mul(sizeof(int64_t), (size_t)shape->capacity, &out->positions))
        return error_set(err, ERROR_RESOURCE,
                         "a memory of %lld tokens (%d layers of %d heads of %d) is too large to count its bytes",
                         (long long)shape->capacity, shape->layers, shape->kv_heads, shape->dim);
    return 0;
}

/* ---- life ---- */

static int alloc_all(struct memory *memory, const struct memory_sizes *sizes, struct error *err)
{
    const struct device *device = memory->device;
    void *(*const alloc)(size_t, const char *, struct error *) =
        memory->shape.on_host ? device->host_alloc : device->alloc;
    if (!(memory->positions = malloc(sizes->positions)))
        return error_set(err, ERROR_RESOURCE, "no memory for %lld positions", (long long)memory->shape.capacity);
    if (!(memory->keys = alloc(sizes->keys / 2, "the keys of the past", err)) ||
        !(memory->values = alloc(sizes->keys / 2, "the values of the past", err)))
        return -1;
    if (!device->host_visible &&
        !(memory->device_positions = device->alloc(sizes->positions, "the positions of the past", err)))
        return -1;
    return 0;
}

struct memory *memory_create(const struct memory_shape *shape, const struct device *device, struct error *err)
{
    struct memory_sizes sizes = {0};
    if (memory_bytes(shape, &sizes, err) != 0)
        return NULL;
    struct memory *memory = calloc(1, sizeof *memory);
    if (!memory) {
        error_set(err, ERROR_RESOURCE, "no memory for the description of a memory");
        return NULL;
    }
    memory->shape = *shape;
    memory->device = device;
    if (alloc_all(memory, &sizes, err) == 0)
        return memory;
    memory_free(memory);
    return NULL;
}

void memory_free(struct memory *memory)
{
    if (!memory)
        return;
    const struct device *device = memory->device;
    void (*const free_keys)(void *) = memory->shape.on_host ? device->host_free : device->free;
    device->free(memory->device_positions);
    free_keys(memory->values);
    free_keys(memory->keys);
    free(memory->positions);
    free(memory);
}

/* ---- use ---- */

void memory_reset(struct memory *memory)
{
    memory->length = 0;
}

/* The last n positions to the device; what was copied there before is there, too, when it returns. */
static int copy_positions(struct memory *memory, int64_t n, struct error *err)
{
    const int64_t first = memory->length - n;
    if (!memory->device_positions || n == 0)
        return 0;
    return memory->device->copy(memory->device_positions + first, memory->positions + first,
                                (size_t)n * sizeof *memory->positions, DEVICE_FROM_HOST, NULL, err) == 0
               ? memory->device->stream_wait(NULL, err)
               : -1;
}

int memory_extend(struct memory *memory, const int64_t *positions, int64_t n, struct error *err)
{
    int64_t capacity = memory->shape.capacity, length = memory->length;
    if (n > capacity - length)
        return error_set(err, ERROR_INTERNAL, "%lld tokens more than the %lld in memory pass its capacity of %lld",
                         (long long)n, (long long)length, (long long)capacity);
    int64_t last = length > 0 ? memory->positions[length - 1] : -1;
    for (int64_t i = 0; i < n; i++) {
        if (positions[i] <= last)
            return error_set(err, ERROR_INTERNAL, "position %lld does not follow %lld in memory",
                             (long long)positions[i], (long long)last);
        last = positions[i];
    }
    if (n > 0)
        memcpy(memory->positions + length, positions, (size_t)n * sizeof *positions);
    memory->length += n;
    return copy_positions(memory, n, err);
}

/* Bytes before the token `index` of a head in a layer. */
static size_t offset_of(const struct memory_shape *shape, int layer, int kv_head, int64_t index)
{
    size_t run = (size_t)layer * (size_t)shape->kv_heads + (size_t)kv_head;
    size_t row = run * (size_t)shape->capacity + (size_t)index;
    return row * (size_t)shape->dim * dtype_size(shape->dtype);
}

/* Within a run, where the two do not overlap. */
static int move_rows(struct memory *memory, char *rows, size_t to, size_t from, size_t bytes, struct error *err)
{
    if (!memory->shape.on_host)
        return memory->device->copy(rows + to, rows + from, bytes, DEVICE_WITHIN, NULL, err);
    memcpy(rows + to, rows + from, bytes);
    return 0;
}

int memory_keep_last(struct memory *memory, int64_t kept, struct error *err)
{
    const struct memory_shape *shape = &memory->shape;
    const int64_t from = memory->length - kept;
    const size_t bytes = offset_of(shape, 0, 0, kept);
    if (kept < 0 || kept > from)
        return error_set(err, ERROR_INTERNAL, "%lld of %lld tokens in memory are to stay", (long long)kept,
                         (long long)memory->length);
    for (int run = 0; run < shape->layers * shape->kv_heads; run++) {
        const size_t to = offset_of(shape, 0, run, 0), at = offset_of(shape, 0, run, from);
        if (move_rows(memory, memory->keys, to, at, bytes, err) != 0 ||
            move_rows(memory, memory->values, to, at, bytes, err) != 0)
            return -1;
    }
    memmove(memory->positions, memory->positions + from, (size_t)kept * sizeof *memory->positions);
    memory->length = kept;
    return copy_positions(memory, kept, err);
}

void memory_put(struct memory *memory, int layer, int64_t index, const float *k, const float *v)
{
    const struct memory_shape *shape = &memory->shape;
    for (int head = 0; head < shape->kv_heads; head++) {
        size_t offset = offset_of(shape, layer, head, index);
        const size_t from = (size_t)head * (size_t)shape->dim;
        row_from_f32(shape->dtype, k + from, (char *)memory->keys + offset, shape->dim);
        row_from_f32(shape->dtype, v + from, (char *)memory->values + offset, shape->dim);
    }
}

const void *memory_keys(const struct memory *memory, int layer, int kv_head)
{
    return (const char *)memory->keys + offset_of(&memory->shape, layer, kv_head, 0);
}

const void *memory_values(const struct memory *memory, int layer, int kv_head)
{
    return (const char *)memory->values + offset_of(&memory->shape, layer, kv_head, 0);
}

const float *memory_key_offset(const struct memory *memory, int layer, int kv_head)
{
    const float *const *offsets = memory->shape.key_offsets;
    return offsets ? offsets[layer] + (int64_t)kv_head * memory->shape.dim : NULL;
}
