#include "attention/retrieve_parts.h"

#include <math.h>
#include <string.h>

static int64_t groups_of(const struct retrieve_stage *stage)
{
    return stage->call->n_groups;
}

static int tiles_of(const struct retrieve_stage *stage, int64_t group)
{
    return retrieve_tiles(stage->retrieve, stage->call->groups[group].count, stage->coarse);
}

/* Scores of a tile of a group's rows, [columns][FAR_LANES]. */
static float *scores_of(const struct retrieve_stage *stage, int64_t group, int tile)
{
    const struct retrieve *r = stage->retrieve;
    return (float *)(r->memory + r->plan.scores) + group * r->plan.board + tile * r->n_columns[group] * FAR_LANES;
}

float *retrieve_most(const struct retrieve *r, int64_t group, int tile)
{
    return (float *)(r->memory + r->plan.most) + (group * r->plan.tiles + tile) * FAR_LANES;
}

float *retrieve_factors(const struct retrieve *r, int64_t group, int tile)
{
    return (float *)(r->memory + r->plan.factors) + (group * r->plan.tiles + tile) * FAR_LANES;
}

static double *sums_of(const struct retrieve *r, int64_t group, int tile)
{
    return (double *)(void *)(r->memory + r->plan.sums) + (group * r->plan.tiles + tile) * FAR_LANES;
}

/* ---- scores ---- */

struct far_keys8 retrieve_keys(const struct retrieve_stage *stage, int64_t block, int thread, int n)
{
    const struct retrieve *r = stage->retrieve;
    struct far_keys8 keys = {.dim = r->options.dim, .n = stage->coarse ? FAR_REPRESENTATIVES : FAR_BLOCK};
    keys.k =
        (uint8_t *)(r->memory + r->plan.keys) + (size_t)(thread * RETRIEVE_KEYS + n * keys.n) * (size_t)keys.dim;
    r->scorer->read(&keys, far_record(stage->call->far, stage->kv_head, block));
    return keys;
}

/* Candidates lie anywhere in the memory: the next one's keys are fetched while one is scored. */
static void fetch_ahead(const struct retrieve_stage *stage, int64_t block)
{
    enum { LINE = 64 };
    const int dim = stage->retrieve->options.dim;
    const struct far_record_parts parts =
        far_record_parts(far_record(stage->call->far, stage->kv_head, block), dim);
    for (int at = 0; at < FAR_BLOCK * dim / 2; at += LINE)
        __builtin_prefetch(parts.keys + at);
    for (int at = 0; at < 2 * dim; at += LINE / (int)sizeof(bf16)) /* low, and the steps behind it */
        __builtin_prefetch(parts.low + at);
}

static void score_column(const struct retrieve_stage *stage, int64_t group, int64_t column,
                         const struct far_keys8 *keys)
{
    const struct retrieve *r = stage->retrieve;
    const int tiles = tiles_of(stage, group);
    int32_t best[FAR_TILES][FAR_LANES];
    for (int tile = 0; tile < tiles; tile++) {
        const float *scales = retrieve_scales(r, group, stage->kv_head, tile);
        float *out = scores_of(stage, group, tile) + column * FAR_LANES;
        if (tile % FAR_TILES == 0)
            r->scorer->best(retrieve_lanes(r, group, stage->kv_head, tile),
                            tiles - tile < FAR_TILES ? tiles - tile : FAR_TILES, keys, best[0]);
        for (int l = 0; l < FAR_LANES; l++)
            out[l] = (float)best[tile % FAR_TILES][l] * (scales[l] * keys->scale);
    }
}

/* Item: a run of columns for all groups, which have the same blocks there. */
static void score_run_item(void *context, int64_t item, int thread)
{
    const struct retrieve_stage *stage = context;
    const struct retrieve *r = stage->retrieve;
    for (int64_t at = item * RETRIEVE_RUN; at < (item + 1) * RETRIEVE_RUN; at++) {
        struct far_keys8 keys;
        bool read = false;
        for (int64_t g = 0; g < groups_of(stage); g++) {
            const int64_t column = at - r->skipped[g];
            if (column < 0 || column >= r->n_columns[g])
                continue;
            if (!read)
                keys = retrieve_keys(stage, retrieve_columns(r, g)[column], thread, 0);
            read = true;
            score_column(stage, g, column, &keys);
        }
    }
}

/* Item: all columns of a group. */
static void score_group_item(void *context, int64_t item, int thread)
{
    const struct retrieve_stage *stage = context;
    const struct retrieve *r = stage->retrieve;
    const int64_t *columns = retrieve_columns(r, item), n = r->n_columns[item];
    for (int64_t column = 0; column < n; column++) {
        const struct far_keys8 keys = retrieve_keys(stage, columns[column], thread, 0);
        if (column + 1 < n)
            fetch_ahead(stage, columns[column + 1]);
        score_column(stage, item, column, &keys);
    }
}

static void score(const struct retrieve_stage *stage)
{
    if (stage->aligned)
        retrieve_run(stage->retrieve, i64_ceil_div(stage->columns, RETRIEVE_RUN), score_run_item, (void *)stage);
    else
        retrieve_run(stage->retrieve, groups_of(stage), score_group_item, (void *)stage);
}

/* ---- the softmax over blocks ---- */

/* Item: a group's largest scores, row by row. */
static void most_item(void *context, int64_t item, int thread)
{
    const struct retrieve_stage *stage = context;
    const struct retrieve *r = stage->retrieve;
    (void)thread;
    for (int tile = 0; tile < tiles_of(stage, item); tile++) {
        const float *scores = scores_of(stage, item, tile);
        float most[FAR_LANES];
        for (int l = 0; l < FAR_LANES; l++)
            most[l] = -INFINITY;
        for (int64_t i = 0; i < r->n_columns[item]; i++, scores += FAR_LANES)
            for (int l = 0; l < FAR_LANES; l++)
                most[l] = scores[l] > most[l] ? scores[l] : most[l];
        memcpy(retrieve_most(r, item, tile), most, sizeof most);
    }
}

static void weigh_item(void *context, int64_t item, int thread)
{
    const struct retrieve_stage *stage = context;
    const struct retrieve *r = stage->retrieve;
    (void)thread;
    for (int tile = 0; tile < tiles_of(stage, item); tile++)
        r->scorer->weigh(scores_of(stage, item, tile), r->n_columns[item], retrieve_most(r, item, tile),
                         sums_of(r, item, tile));
}

/* Item: a group's weights, and the best of this rank. */
static void best_item(void *context, int64_t item, int thread)
{
    const struct retrieve_stage *stage = context;
    const struct retrieve *r = stage->retrieve;
    const int64_t n = r->n_columns[item];
    double *weights = (double *)(void *)(r->memory + r->plan.weights) + item * r->plan.max_columns;
    memset(weights, 0, (size_t)n * sizeof *weights);
    for (int tile = 0; tile < tiles_of(stage, item); tile++)
        r->scorer->mix(scores_of(stage, item, tile), n, retrieve_factors(r, item, tile), weights);
    retrieve_best_put(stage, item, weights, thread);
}

/* Item: what a group's rows count, which is nothing where there are none. */
static void factors_item(void *context, int64_t item, int thread)
{
    const struct retrieve_stage *stage = context;
    const struct retrieve *r = stage->retrieve;
    const int rows = retrieve_rows(r, stage->call->groups[item].count, stage->coarse);
    (void)thread;
    for (int tile = 0; tile < tiles_of(stage, item); tile++)
        for (int l = 0; l < FAR_LANES; l++)
            retrieve_factors(r, item, tile)[l] =
                tile * FAR_LANES + l < rows ? (float)(1 / sums_of(r, item, tile)[l]) : 0;
}

int retrieve_board_weigh(const struct retrieve_stage *stage, struct error *err)
{
    struct retrieve *r = stage->retrieve;
    const struct comm *group = r->options.group;
    const int lanes = (int)groups_of(stage) * r->plan.tiles * FAR_LANES;
    score(stage);
    retrieve_run(r, groups_of(stage), most_item, (void *)stage);
    if (group->size > 1 &&
        comm_check(MPI_Allreduce(MPI_IN_PLACE, retrieve_most(r, 0, 0), lanes, MPI_FLOAT, MPI_MAX, group->mpi),
                   "merging the scores of far blocks", err) < 0)
        return -1;
    retrieve_run(r, groups_of(stage), weigh_item, (void *)stage);
    if (group->size > 1 &&
        comm_check(MPI_Allreduce(MPI_IN_PLACE, sums_of(r, 0, 0), lanes, MPI_DOUBLE, MPI_SUM, group->mpi),
                   "merging the sums of far blocks", err) < 0)
        return -1;
    retrieve_run(r, groups_of(stage), factors_item, (void *)stage);
    return 0;
}

const struct retrieve_entry *retrieve_board_best(const struct retrieve_stage *stage, struct error *err)
{
    if (retrieve_board_weigh(stage, err) != 0)
        return NULL;
    retrieve_run(stage->retrieve, groups_of(stage), best_item, (void *)stage);
    return retrieve_best_merge(stage, err);
}
