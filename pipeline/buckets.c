#include "pipeline/buckets.h"

#include <math.h>

#include "base/num.h"

int64_t buckets_width(int64_t end)
{
    static const int64_t steps[] = {1, 2, 5};
    for (int64_t decade = BUCKETS_LEAST_WIDTH;; decade *= 10)
        for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
            if (i64_ceil_div(end, steps[i] * decade) <= BUCKETS_MOST)
                return steps[i] * decade;
}

int64_t buckets_fill(const struct result_score *score, struct result_bucket out[BUCKETS_MOST])
{
    if (score->count == 0)
        return 0;
    const int64_t end = score->position[score->count - 1] + 1, width = buckets_width(end);
    int64_t n = 0;
    for (int64_t i = 0; i < score->count; i++) {
        const int64_t first = score->position[i] / width * width;
        if (n == 0 || out[n - 1].first_position != first)
            out[n++] = (struct result_bucket){.first_position = first, .end_position = i64_min(first + width, end)};
        out[n - 1].count++;
        out[n - 1].nll_sum -= score->logprob[i];
    }
    for (int64_t b = 0; b < n; b++)
        out[b].perplexity = exp(out[b].nll_sum / (double)out[b].count);
    return n;
}
