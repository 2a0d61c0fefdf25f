#include "attention/far.h"

#include <string.h>

static int64_t most_held(const struct far_shape *shape, int ranks)
{
    return i64_ceil_div(shape->capacity + shape->ahead, ranks);
}

bool far_bytes(const struct far_shape *shape, int ranks, size_t *out)
{
    return size_mul((size_t)shape->kv_heads * far_record_bytes(shape->dim), (size_t)most_held(shape, ranks), out);
}

int far_create(struct far *far, const struct far_shape *shape, const struct comm *group,
               const struct device *device, struct error *err)
{
    size_t bytes;
    *far = (struct far){.shape = *shape, .device = device, .rank = group->rank, .ranks = group->size};
    far->held = most_held(shape, group->size);
    if (far->held == 0)
        return 0;
    if (!far_bytes(shape, group->size, &bytes))
        return error_set(err, ERROR_RESOURCE, "a far memory of %lld blocks is too large to count its bytes",
                         (long long)(shape->capacity + shape->ahead));
    return (far->records = device->alloc(bytes, "the far memory of a layer", err)) ? 0 : -1;
}

void far_free(struct far *far)
{
    if (far->device)
        far->device->free(far->records);
    *far = (struct far){0};
}

void far_reset(struct far *far)
{
    far->blocks = far->oldest = 0;
}

int64_t far_first_seen(const struct far *far, int64_t end)
{
    return i64_max(0, end - far->shape.capacity);
}

void far_settle(struct far *far)
{
    far->oldest = i64_max(far->oldest, far_first_seen(far, far->blocks));
}

int64_t far_own(const struct far *far, int64_t end)
{
    return i64_ceil_div(i64_max(0, end - far->rank), far->ranks);
}

int64_t far_own_block(const struct far *far, int64_t i)
{
    return i * far->ranks + far->rank;
}

size_t far_resident(const struct far *far)
{
    const int64_t own = far_own(far, far->blocks) - far_own(far, far->oldest);
    return (size_t)far->shape.kv_heads * (size_t)own * far_record_bytes(far->shape.dim);
}

void *far_record(const struct far *far, int kv_head, int64_t block)
{
    const int64_t place = block / far->ranks % far->held;
    return far->records + (size_t)(kv_head * far->held + place) * far_record_bytes(far->shape.dim);
}

/* ---- appending ---- */

struct append {
    struct far *far;
    const struct near *near;
    int64_t first; /* of this rank's new blocks */
};

/* Item: one new block of this rank in one kv head. */
static void append_item(void *context, int64_t item, int thread)
{
    const struct append *a = context;
    const struct far *far = a->far;
    const int head = (int)(item % far->shape.kv_heads);
    const int64_t block = a->first + item / far->shape.kv_heads * far->ranks;
    const int64_t token = far->shape.first_token + block * FAR_BLOCK;
    (void)thread;
    far_record_write(far_record(far, head, block), a->near->shape.dtype, far->shape.dim,
                     near_keys(a->near, head, token), near_values(a->near, head, token));
}

void far_append(struct far *far, const struct near *near, int64_t end, struct pool *pool)
{
    const int64_t blocks = i64_max(0, end - far->shape.first_token) / FAR_BLOCK;
    if (blocks <= far->blocks || far->shape.capacity == 0)
        return;
    far->oldest = i64_max(far->oldest, blocks - far->shape.capacity - far->shape.ahead);
    /* Of more than the memory can hold only the last. */
    const int64_t before = far_own(far, i64_max(far->blocks, far->oldest)), n = far_own(far, blocks) - before;
    const struct append append = {far, near, far_own_block(far, before)};
    const struct pool_job job = {
        .n_items = n * far->shape.kv_heads, .work = append_item, .context = (void *)&append};
    far->blocks = blocks;
    if (n > 0)
        pool_run(pool, &job);
}

/* ---- fetching ---- */

static int owner_of(const struct far *far, const struct far_want *want)
{
    return (int)(want->block % far->ranks);
}

/* The records that this rank has for rank `to`, in the order of its wants; returns their number. */
static int gather_for(const struct far *far, const struct far_wants *wanted, int to, char *out)
{
    const size_t bytes = far_record_bytes(far->shape.dim);
    int count = 0;
    for (int64_t i = 0; i < wanted->n; i++) {
        const struct far_want *want = &wanted->wants[i];
        if (want->rank == to && owner_of(far, want) == far->rank)
            memcpy(out + (size_t)count++ * bytes, far_record(far, want->kv_head, want->block), bytes);
    }
    return count;
}

static int count_from(const struct far *far, const struct far_wants *wanted, int from)
{
    int count = 0;
    for (int64_t i = 0; i < wanted->n; i++)
        count += wanted->wants[i].rank == far->rank && owner_of(far, &wanted->wants[i]) == from;
    return count;
}

/* The records that came from rank `from`, to their places among this rank's wants. */
static void place_from(const struct far *far, const struct far_wants *wanted, int from, const char *in)
{
    const size_t bytes = far_record_bytes(far->shape.dim);
    int64_t place = 0;
    for (int64_t i = 0; i < wanted->n; i++) {
        if (wanted->wants[i].rank != far->rank)
            continue;
        if (owner_of(far, &wanted->wants[i]) == from) {
            memcpy((char *)wanted->records + (size_t)place * bytes, in, bytes);
            in += bytes;
        }
        place++;
    }
}

int far_fetch(const struct far *far, const struct comm *group, const struct far_wants *wanted, struct error *err)
{
    const size_t bytes = far_record_bytes(far->shape.dim);
    MPI_Datatype record;
    if (wanted->n == 0)
        return 0;
    gather_for(far, wanted, far->rank, wanted->stage);
    place_from(far, wanted, far->rank, wanted->stage);
    if (far->ranks == 1)
        return 0;
    if (comm_record_type(bytes, "far records", &record, err) < 0)
        return -1;
    int status = 0;
    for (int step = 1; step < far->ranks && status == 0; step++) {
        const int to = (far->rank + step) % far->ranks, from = (far->rank + far->ranks - step) % far->ranks;
        const int sent = gather_for(far, wanted, to, wanted->stage), coming = count_from(far, wanted, from);
        char *arrived = (char *)wanted->stage + (size_t)sent * bytes;
        status = comm_check(MPI_Sendrecv(wanted->stage, sent, record, to, 0, arrived, coming, record, from, 0,
                                         group->mpi, MPI_STATUS_IGNORE),
                            "fetching far records", err);
        if (status == 0)
            place_from(far, wanted, from, arrived);
    }
    MPI_Type_free(&record);
    return status;
}
