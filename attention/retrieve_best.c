#include "attention/retrieve_parts.h"

static bool better(const struct retrieve_entry *a, const struct retrieve_entry *b)
{
    return a->weight != b->weight ? a->weight > b->weight : a->block < b->block;
}

static void swap(struct retrieve_entry *a, struct retrieve_entry *b)
{
    const struct retrieve_entry c = *a;
    *a = *b;
    *b = c;
}

/* The k best of n to the front, in any order (Hoare's selection). */
static void select_best(struct retrieve_entry *entries, int64_t n, int64_t k)
{
    int64_t first = 0, last = n - 1;
    while (first < last) {
        const struct retrieve_entry pivot = entries[first + (last - first) / 2];
        int64_t i = first, j = last;
        while (i <= j) {
            while (better(&entries[i], &pivot))
                i++;
            while (better(&pivot, &entries[j]))
                j--;
            if (i <= j)
                swap(&entries[i++], &entries[j--]);
        }
        if (k <= j)
            last = j;
        else if (k >= i)
            first = i;
        else
            return;
    }
}

/* What rank `rank` has for a group. */
static struct retrieve_entry *best_of(const struct retrieve_stage *stage, int rank, int64_t group)
{
    const struct retrieve *r = stage->retrieve;
    return (struct retrieve_entry *)(void *)(r->memory + r->plan.best) +
           (rank * stage->call->n_groups + group) * stage->keep;
}

/* The best of n entries, in any order, and nothing behind them. */
static void put_best(struct retrieve_entry *entries, int64_t n, struct retrieve_entry *out, int64_t keep)
{
    const int64_t k = i64_min(n, keep);
    select_best(entries, n, k);
    for (int64_t i = 0; i < keep; i++)
        out[i] = i < k ? entries[i] : (struct retrieve_entry){-1, -1};
}

void retrieve_best_put(const struct retrieve_stage *stage, int64_t group, const double *weights, int thread)
{
    const struct retrieve *r = stage->retrieve;
    struct retrieve_entry *entries =
        (struct retrieve_entry *)(void *)(r->memory + r->plan.entries) + thread * r->plan.max_columns;
    for (int64_t i = 0; i < r->n_columns[group]; i++)
        entries[i] = (struct retrieve_entry){weights[i], retrieve_columns(r, group)[i]};
    put_best(entries, r->n_columns[group], best_of(stage, r->options.group->rank, group), stage->keep);
}

const struct retrieve_entry *retrieve_best_merge(const struct retrieve_stage *stage, struct error *err)
{
    const struct retrieve *r = stage->retrieve;
    const struct comm *group = r->options.group;
    const int64_t each = stage->call->n_groups * stage->keep;
    if (group->size == 1)
        return best_of(stage, 0, 0);
    if (comm_check(MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, best_of(stage, 0, 0),
                                 (int)(each * (int64_t)sizeof(struct retrieve_entry)), MPI_BYTE, group->mpi),
                   "merging the best far blocks", err) < 0)
        return NULL;
    struct retrieve_entry *all = (struct retrieve_entry *)(void *)(r->memory + r->plan.merged);
    for (int64_t g = 0; g < stage->call->n_groups; g++) {
        int64_t n = 0;
        for (int rank = 0; rank < group->size; rank++)
            for (int64_t i = 0; i < stage->keep && best_of(stage, rank, g)[i].block >= 0; i++)
                all[n++] = best_of(stage, rank, g)[i];
        put_best(all, n, best_of(stage, 0, g), stage->keep);
    }
    return best_of(stage, 0, 0);
}
