#include "attention/keep_best.h"

#include <stdlib.h>

#include "base/num.h"

struct candidate {
    double score;
    int64_t index;
};

static int higher(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static int earlier(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    return x->index < y->index ? -1 : x->index > y->index;
}

int keep_best(struct keep *keep, const double *scores, int64_t stride, struct error *err)
{
    const int64_t n = keep->slots + keep->leaving, count = i64_min(n, keep->spec->slots);
    struct candidate *all = calloc((size_t)n + 1, sizeof *all);
    if (!all)
        return error_set(err, ERROR_RESOURCE, "no memory to sort %lld keys", (long long)n);
    keep->count = count;
    for (int head = 0; head < keep->kv_heads; head++) {
        struct slot_recipe *recipes = keep->recipes + (size_t)head * (size_t)keep->spec->slots;
        for (int64_t i = 0; i < n; i++)
            all[i] = (struct candidate){scores[head * stride + i], i};
        qsort(all, (size_t)n, sizeof *all, higher);
        qsort(all, (size_t)count, sizeof *all, earlier);
        for (int64_t i = 0; i < count; i++)
            recipes[i] = (struct slot_recipe){all[i].index, 1};
    }
    free(all);
    return 0;
}
