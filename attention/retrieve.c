#include "attention/retrieve_parts.h"

#include <stdlib.h>
#include <string.h>

#include "attention/layout.h"

/* ---- rows ---- */

int retrieve_rows(const struct retrieve *r, int64_t count, bool coarse)
{
    const int rows = (int)i64_ceil_div(count, RETRIEVE_SAMPLE) * r->heads_per_kv;
    const int first = (int)i64_round_up(i64_ceil_div(count, RETRIEVE_COARSE) * r->heads_per_kv, FAR_LANES);
    return coarse && first < rows ? first : rows;
}

int retrieve_tiles(const struct retrieve *r, int64_t count, bool coarse)
{
    return (retrieve_rows(r, count, coarse) + FAR_LANES - 1) / FAR_LANES;
}

/* Which query of a group of `count` is sample s: first one in RETRIEVE_COARSE, then the others. */
static int64_t sampled(int64_t count, int64_t s)
{
    enum { BETWEEN = RETRIEVE_COARSE / RETRIEVE_SAMPLE - 1 };
    const int64_t coarse = i64_ceil_div(count, RETRIEVE_COARSE), other = s - coarse;
    return s < coarse ? s * RETRIEVE_COARSE
                      : other / BETWEEN * RETRIEVE_COARSE + RETRIEVE_SAMPLE * (1 + other % BETWEEN);
}

static char *packed_of(const struct retrieve *r, int64_t group)
{
    return r->memory + r->plan.packed + (size_t)group * r->plan.packed_bytes;
}

int8_t *retrieve_lanes(const struct retrieve *r, int64_t group, int kv_head, int tile)
{
    return (int8_t *)packed_of(r, group) +
           (size_t)(kv_head * r->plan.tiles + tile) * far_lanes_bytes(r->options.dim);
}

float *retrieve_scales(const struct retrieve *r, int64_t group, int kv_head, int tile)
{
    char *behind = (char *)retrieve_lanes(r, group, r->options.kv_heads, 0);
    return (float *)(void *)behind + (kv_head * r->plan.tiles + tile) * FAR_LANES;
}

int64_t *retrieve_columns(const struct retrieve *r, int64_t group)
{
    return (int64_t *)(void *)(r->memory + r->plan.columns) + group * r->plan.max_columns;
}

/* ---- life ---- */

static bool plan_make(const struct retrieve_options *o, struct retrieve_plan *plan)
{
    const struct retrieve shape = {.heads_per_kv = o->heads / o->kv_heads};
    const int ranks = o->group->size;
    const size_t groups = (size_t)o->max_groups, threads = (size_t)pool_threads(o->pool);
    size_t total = 0;
    *plan = (struct retrieve_plan){0};
    plan->tiles = retrieve_tiles(&shape, o->max_count, false);
    plan->max_columns = i64_ceil_div(o->max_blocks, ranks) + 1;
    const size_t lanes = (size_t)plan->tiles * FAR_LANES, columns = (size_t)plan->max_columns;
    const int64_t fine = plan->tiles * i64_min(plan->max_columns, RETRIEVE_CANDIDATES);
    /* Among a multiple of RETRIEVE_GLANCE ranks one has all blocks of the sample. */
    const int64_t sample = plan->max_columns / (ranks % RETRIEVE_GLANCE == 0 ? 1 : RETRIEVE_GLANCE) + 1;
    const int64_t glance = retrieve_tiles(&shape, o->max_count, true) * sample;
    plan->board = i64_max(fine, o->max_blocks > RETRIEVE_CANDIDATES ? glance : 0) * FAR_LANES;
    plan->packed_bytes =
        (size_t)(o->kv_heads * plan->tiles) * (far_lanes_bytes(o->dim) + FAR_LANES * sizeof(float));
    const size_t best = groups * RETRIEVE_CANDIDATES * sizeof(struct retrieve_entry);
    const bool fits = layout_reserve(&total, groups, plan->packed_bytes, &plan->packed) &&
                      layout_reserve(&total, groups * columns, sizeof(int64_t), &plan->columns) &&
                      layout_reserve(&total, groups, (size_t)plan->board * sizeof(float), &plan->scores) &&
                      layout_reserve(&total, groups * lanes, sizeof(float), &plan->most) &&
                      layout_reserve(&total, groups * lanes, sizeof(double), &plan->sums) &&
                      layout_reserve(&total, groups * lanes, sizeof(float), &plan->factors) &&
                      layout_reserve(&total, groups * columns, sizeof(double), &plan->weights) &&
                      layout_reserve(&total, threads * columns, sizeof(struct retrieve_entry), &plan->entries) &&
                      layout_reserve(&total, (size_t)ranks, best, &plan->best) &&
                      layout_reserve(&total, (size_t)(ranks > 1 ? ranks * RETRIEVE_CANDIDATES : 0),
                                     sizeof(struct retrieve_entry), &plan->merged) &&
                      layout_reserve(&total, threads * RETRIEVE_KEYS, (size_t)o->dim, &plan->keys);
    plan->total = total;
    return fits;
}

int retrieve_bytes(const struct retrieve_options *options, size_t *out, struct error *err)
{
    struct retrieve_plan plan;
    if (!plan_make(options, &plan))
        return error_set(err, ERROR_RESOURCE, "retrieval among %lld blocks is too large to count its bytes",
                         (long long)options->max_blocks);
    *out = plan.total;
    return 0;
}

struct retrieve *retrieve_create(const struct retrieve_options *options, struct error *err)
{
    size_t bytes = 0;
    struct retrieve *r = calloc(1, sizeof *r);
    if (!r || !(r->n_columns = calloc(2 * (size_t)options->max_groups, sizeof *r->n_columns))) {
        free(r);
        error_set(err, ERROR_RESOURCE, "no memory for the description of retrieval");
        return NULL;
    }
    r->options = *options;
    r->skipped = r->n_columns + options->max_groups;
    r->heads_per_kv = options->heads / options->kv_heads;
    r->scorer = far_scorer_choose();
    if (retrieve_bytes(options, &bytes, err) == 0 && plan_make(options, &r->plan) &&
        (r->memory = options->device->alloc(bytes, "the choice of far blocks", err)))
        return r;
    retrieve_free(r);
    return NULL;
}

void retrieve_free(struct retrieve *r)
{
    if (!r)
        return;
    r->options.device->free(r->memory);
    free(r->n_columns);
    free(r);
}

void retrieve_run(const struct retrieve *r, int64_t items, void (*work)(void *, int64_t, int), void *context)
{
    const struct pool_job job = {items, work, context, r->options.poll, r->options.poll_context};
    if (items > 0)
        pool_run(r->options.pool, &job);
}

/* ---- queries ---- */

struct writing {
    struct retrieve *retrieve;
    const struct retrieve_call *call;
};

/* The query of a row of a group: one sample of it in one head, the heads of a kv head side by side. */
static const float *query_of(const struct writing *w, const struct retrieve_group *group, int kv_head, int row)
{
    const int heads = w->retrieve->heads_per_kv;
    const int64_t token = group->row + sampled(group->count, row / heads);
    return w->call->q + token * w->call->stride +
           (int64_t)(kv_head * heads + row % heads) * w->retrieve->options.dim;
}

/* Item: the sampled rows of one group and kv head, where this rank has them; zeros up to a whole tile. */
static void write_item(void *context, int64_t item, int thread)
{
    const struct writing *w = context;
    struct retrieve *r = w->retrieve;
    const struct retrieve_options *o = &r->options;
    const int64_t g = item / o->kv_heads;
    const int head = (int)(item % o->kv_heads);
    const struct retrieve_group *group = &w->call->groups[g];
    const int rows = retrieve_rows(r, group->count, false);
    (void)thread;
    if (group->rank != RETRIEVE_EVERY && group->rank != o->group->rank)
        return;
    for (int row = 0; row < r->plan.tiles * FAR_LANES; row++) {
        const int tile = row / FAR_LANES, lane = row % FAR_LANES;
        const float *q = row < rows ? query_of(w, group, head, row) : NULL;
        retrieve_scales(r, g, head, tile)[lane] =
            far_lanes_put(retrieve_lanes(r, g, head, tile), lane, q, o->dim) * w->call->scale * ATTN_LOG2_E;
    }
}

/* The packed queries of all ranks to all ranks; groups are in order of ranks. */
static int share_queries(struct retrieve *r, const struct retrieve_call *call, struct error *err)
{
    const struct comm *group = r->options.group;
    MPI_Datatype packed;
    if (group->size == 1 || call->groups[0].rank == RETRIEVE_EVERY)
        return 0;
    int *counts = calloc(2 * (size_t)group->size, sizeof *counts), *places = counts + group->size;
    if (!counts)
        return error_set(err, ERROR_RESOURCE, "no memory for the counts of %d ranks", group->size);
    for (int64_t g = 0; g < call->n_groups; g++)
        counts[call->groups[g].rank]++;
    for (int rank = 1; rank < group->size; rank++)
        places[rank] = places[rank - 1] + counts[rank - 1];
    int status = comm_record_type(r->plan.packed_bytes, "queries", &packed, err);
    if (status == 0) {
        status = comm_check(
            MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, packed_of(r, 0), counts, places, packed, group->mpi),
            "sharing queries", err);
        MPI_Type_free(&packed);
    }
    free(counts);
    return status;
}

/* ---- the choice ---- */

static int64_t first_seen_by_any(const struct retrieve_call *call)
{
    int64_t first = call->far->blocks;
    for (int64_t g = 0; g < call->n_groups; g++)
        first = i64_min(first, call->groups[g].first);
    return first;
}

int64_t retrieve_list(const struct retrieve_stage *stage, int64_t step)
{
    struct retrieve *r = stage->retrieve;
    const struct far *far = stage->call->far;
    const int64_t from = far_own(far, first_seen_by_any(stage->call));
    int64_t most = 0;
    for (int64_t g = 0; g < stage->call->n_groups; g++) {
        const struct retrieve_group *group = &stage->call->groups[g];
        const int64_t end = far_own(far, i64_min(group->end, far->blocks));
        int64_t *columns = retrieve_columns(r, g);
        r->n_columns[g] = r->skipped[g] = 0;
        for (int64_t i = from; i < end; i++) {
            const int64_t block = far_own_block(far, i);
            if (block % step == 0 && block < group->first)
                r->skipped[g]++;
            else if (block % step == 0)
                columns[r->n_columns[g]++] = block;
        }
        most = i64_max(most, r->skipped[g] + r->n_columns[g]);
    }
    return most;
}

/* Whether a group sees so many blocks that it looks at their representatives first. */
static bool are_many(const struct retrieve_call *call)
{
    for (int64_t g = 0; g < call->n_groups; g++)
        if (i64_min(call->groups[g].end, call->far->blocks) - call->groups[g].first > RETRIEVE_CANDIDATES)
            return true;
    return false;
}

/* Of the candidates of all ranks those that this one has. */
static void list_candidates(const struct retrieve_stage *stage, const struct retrieve_entry *best)
{
    struct retrieve *r = stage->retrieve;
    const struct comm *group = r->options.group;
    for (int64_t g = 0; g < stage->call->n_groups; g++) {
        int64_t *columns = retrieve_columns(r, g), n = 0;
        const struct retrieve_entry *of_group = best + g * stage->keep;
        for (int64_t i = 0; i < stage->keep && of_group[i].block >= 0; i++)
            if (of_group[i].block % group->size == group->rank)
                columns[n++] = of_group[i].block;
        r->n_columns[g] = n;
    }
}

static int rising(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void take(const struct retrieve_stage *stage, const struct retrieve_entry *best, int64_t *chosen,
                 int64_t *counts)
{
    const int64_t top = stage->keep;
    for (int64_t g = 0; g < stage->call->n_groups; g++) {
        int64_t *out = chosen + (g * stage->retrieve->options.kv_heads + stage->kv_head) * top, n = 0;
        for (; n < top && best[g * top + n].block >= 0; n++)
            out[n] = best[g * top + n].block;
        qsort(out, (size_t)n, sizeof *out, rising);
        counts[g] = n;
    }
}

static int choose_for_head(struct retrieve *r, const struct retrieve_call *call, int kv_head, int64_t *chosen,
                           int64_t *counts, struct error *err)
{
    struct retrieve_stage stage = {.retrieve = r, .call = call, .kv_head = kv_head, .aligned = true};
    const struct retrieve_entry *best;
    if (are_many(call)) {
        stage.coarse = true;
        stage.keep = RETRIEVE_CANDIDATES;
        if (!(best = retrieve_glance(&stage, err)))
            return -1;
        list_candidates(&stage, best);
        stage.coarse = stage.aligned = false;
    } else {
        stage.columns = retrieve_list(&stage, 1);
    }
    stage.keep = call->top;
    if (!(best = retrieve_board_best(&stage, err)))
        return -1;
    take(&stage, best, chosen, counts);
    return 0;
}

int retrieve_choose(struct retrieve *r, const struct retrieve_call *call, int64_t *chosen, int64_t *counts,
                    struct error *err)
{
    const struct retrieve_options *o = &r->options;
    struct writing writing = {r, call};
    memset(counts, 0, (size_t)call->n_groups * sizeof *counts);
    if (call->far->blocks == 0)
        return 0;
    retrieve_run(r, call->n_groups * o->kv_heads, write_item, &writing);
    int status = share_queries(r, call, err);
    for (int head = 0; head < o->kv_heads && status == 0; head++)
        status = choose_for_head(r, call, head, chosen, counts, err);
    return status;
}

double retrieve_products(double tokens)
{
    const double candidates = (double)RETRIEVE_CANDIDATES * FAR_BLOCK;
    if (tokens <= candidates)
        return tokens / RETRIEVE_SAMPLE;
    return candidates / RETRIEVE_SAMPLE + tokens / RETRIEVE_COARSE * FAR_REPRESENTATIVES / FAR_BLOCK;
}
