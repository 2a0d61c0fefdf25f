#include "attention/near.h"

#include <string.h>

#include "attention/rows.h"

static size_t row_bytes(const struct near_shape *shape)
{
    return (size_t)shape->dim * dtype_size(shape->dtype);
}

/* Keys and values of one token. */
static size_t token_bytes(const struct near_shape *shape)
{
    return 2 * (size_t)shape->kv_heads * row_bytes(shape);
}

bool near_bytes(const struct near_shape *shape, size_t *out)
{
    return size_mul(token_bytes(shape), (size_t)shape->capacity, out);
}

int near_create(struct near *near, const struct near_shape *shape, const struct device *device, struct error *err)
{
    size_t bytes;
    *near = (struct near){.shape = *shape, .device = device};
    if (!near_bytes(shape, &bytes))
        return error_set(err, ERROR_RESOURCE, "a window of %lld tokens is too large to count its bytes",
                         (long long)shape->capacity);
    if (!(near->keys = device->alloc(bytes, "the recent keys and values of a layer", err)))
        return -1;
    near->values = near->keys + bytes / 2;
    return 0;
}

void near_free(struct near *near)
{
    if (near->device)
        near->device->free(near->keys);
    *near = (struct near){0};
}

void near_reset(struct near *near)
{
    near->first = near->length = 0;
}

int near_extend(struct near *near, int64_t n, struct error *err)
{
    if (near->length + n > near->shape.capacity)
        return error_set(err, ERROR_INTERNAL, "%lld tokens more in a window of %lld that holds %lld", (long long)n,
                         (long long)near->shape.capacity, (long long)near->length);
    near->length += n;
    return 0;
}

static char *row_at(const struct near *near, char *rows, int kv_head, int64_t position)
{
    return rows +
           (size_t)((int64_t)kv_head * near->shape.capacity + position - near->first) * row_bytes(&near->shape);
}

void *near_keys(const struct near *near, int kv_head, int64_t position)
{
    return row_at(near, near->keys, kv_head, position);
}

void *near_values(const struct near *near, int kv_head, int64_t position)
{
    return row_at(near, near->values, kv_head, position);
}

void near_drop(struct near *near, int64_t first)
{
    const int64_t gone = i64_min(first - near->first, near->length);
    if (gone <= 0)
        return;
    const size_t left = (size_t)(near->length - gone) * row_bytes(&near->shape);
    for (int head = 0; head < near->shape.kv_heads; head++) {
        memmove(near_keys(near, head, near->first), near_keys(near, head, near->first + gone), left);
        memmove(near_values(near, head, near->first), near_values(near, head, near->first + gone), left);
    }
    near->first += gone;
    near->length -= gone;
}

void near_put(struct near *near, int64_t position, const float *k, const float *v)
{
    const int dim = near->shape.dim;
    for (int head = 0; head < near->shape.kv_heads; head++) {
        row_from_f32(near->shape.dtype, k + head * dim, near_keys(near, head, position), dim);
        row_from_f32(near->shape.dtype, v + head * dim, near_values(near, head, position), dim);
    }
}

/* ---- the exchange --------------------------------------------------------------------------------------- */

size_t near_exchange_bytes(const struct near_shape *shape, int64_t max_block)
{
    return 2 * (size_t)max_block * token_bytes(shape);
}

/* A way of rows between the near part and a buffer: out of it, or into it. */
static void copy_rows(struct near *near, struct stretch which, char **buffer, bool out)
{
    const size_t bytes = (size_t)(which.end - which.first) * row_bytes(&near->shape);
    for (int head = 0; head < near->shape.kv_heads; head++) {
        char *const rows[] = {near_keys(near, head, which.first), near_values(near, head, which.first)};
        for (int i = 0; i < 2; i++, *buffer += bytes)
            memcpy(out ? *buffer : rows[i], out ? rows[i] : *buffer, bytes);
    }
}

/* All that goes from the owner of `from` to the rank that needs `to`; returns the number of tokens. */
static int64_t copy_common(struct near *near, const struct near_share *from, const struct near_share *to,
                           char *buffer, bool out)
{
    int64_t tokens = 0;
    for (int o = 0; o < NEAR_OWNED; o++)
        for (int n = 0; n < NEAR_NEEDED; n++) {
            const struct stretch common = {i64_max(from->owned[o].first, to->needed[n].first),
                                           i64_min(from->owned[o].end, to->needed[n].end)};
            if (common.first >= common.end)
                continue;
            tokens += common.end - common.first;
            if (buffer)
                copy_rows(near, common, &buffer, out);
        }
    return tokens;
}

int near_exchange(struct near *near, const struct comm *group, const struct near_share *shares, void *buffer,
                  struct error *err)
{
    const int ranks = group->size, rank = group->rank;
    const struct near_share *mine = &shares[rank];
    MPI_Datatype token;
    if (ranks == 1)
        return 0;
    if (comm_record_type(token_bytes(&near->shape), "a token's keys", &token, err) < 0)
        return -1;
    int status = 0;
    for (int step = 1; step < ranks && status == 0; step++) {
        const int to = (rank + step) % ranks, from = (rank + ranks - step) % ranks;
        const int64_t sent = copy_common(near, mine, &shares[to], buffer, true);
        char *arrived = (char *)buffer + (size_t)sent * token_bytes(&near->shape);
        const int64_t coming = copy_common(near, &shares[from], mine, NULL, false);
        status = comm_check(MPI_Sendrecv(buffer, (int)sent, token, to, 0, arrived, (int)coming, token, from, 0,
                                         group->mpi, MPI_STATUS_IGNORE),
                            "exchanging recent keys", err);
        if (status == 0)
            copy_common(near, &shares[from], mine, arrived, false);
    }
    MPI_Type_free(&token);
    return status;
}
