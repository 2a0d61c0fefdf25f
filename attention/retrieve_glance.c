#include "attention/retrieve_parts.h"

#include <string.h>

static double *weights_of(const struct retrieve *r, int64_t group)
{
    return (double *)(void *)(r->memory + r->plan.weights) + group * r->plan.max_columns;
}

/* What a block gets from a group. */
static double weigh(const struct retrieve_stage *stage, int64_t group, const struct far_keys8 *keys)
{
    const struct retrieve *r = stage->retrieve;
    const int tiles = retrieve_tiles(r, stage->call->groups[group].count, true);
    int32_t best[FAR_TILES * FAR_LANES];
    double sum = 0;
    for (int tile = 0; tile < tiles; tile += FAR_TILES) {
        const int n = tiles - tile < FAR_TILES ? tiles - tile : FAR_TILES;
        const struct far_rows rows = {retrieve_scales(r, group, stage->kv_head, tile),
                                      retrieve_most(r, group, tile), retrieve_factors(r, group, tile)};
        r->scorer->best(retrieve_lanes(r, group, stage->kv_head, tile), n, keys, best);
        sum += (double)r->scorer->share(best, n, keys->scale, &rows);
    }
    return sum;
}

/* Item: a run of columns for all groups, which have the same blocks there. */
static void weigh_run_item(void *context, int64_t item, int thread)
{
    const struct retrieve_stage *stage = context;
    const struct retrieve *r = stage->retrieve;
    struct far_keys8 keys[RETRIEVE_RUN] = {0};
    for (int64_t g = 0; g < stage->call->n_groups; g++) {
        const int64_t first = item * RETRIEVE_RUN - r->skipped[g],
                      end = i64_min(first + RETRIEVE_RUN, r->n_columns[g]);
        for (int64_t i = i64_max(first, 0); i < end; i++) {
            struct far_keys8 *of = &keys[i - first];
            if (!of->k)
                *of = retrieve_keys(stage, retrieve_columns(r, g)[i], thread, (int)(i - first));
            weights_of(r, g)[i] = weigh(stage, g, of);
        }
    }
}

static void best_item(void *context, int64_t item, int thread)
{
    const struct retrieve_stage *stage = context;
    retrieve_best_put(stage, item, weights_of(stage->retrieve, item), thread);
}

const struct retrieve_entry *retrieve_glance(struct retrieve_stage *stage, struct error *err)
{
    struct retrieve *r = stage->retrieve;
    /* What the queries' softmax over all blocks sums to is taken from a sample of them: it only has to weigh the
     * queries against each other. */
    stage->columns = retrieve_list(stage, RETRIEVE_GLANCE);
    if (retrieve_board_weigh(stage, err) != 0)
        return NULL;
    stage->columns = retrieve_list(stage, 1);
    retrieve_run(r, i64_ceil_div(stage->columns, RETRIEVE_RUN), weigh_run_item, stage);
    retrieve_run(r, stage->call->n_groups, best_item, stage);
    return retrieve_best_merge(stage, err);
}
