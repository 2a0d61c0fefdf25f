#include "attention/far_score.h"

#include <math.h>

static const struct far_scorer *const scorers[] = {&far_scorer_vnni, &far_scorer_avx2, &far_scorer_c};

const struct far_scorer *const *far_scorers(int *n_out)
{
    *n_out = sizeof scorers / sizeof scorers[0];
    return scorers;
}

const struct far_scorer *far_scorer_choose(void)
{
    int i = 0;
    while (!scorers[i]->supported())
        i++;
    return scorers[i];
}

float far_lanes_put(int8_t *lanes, int row, const float *q, int dim)
{
    float most = 0;
    int32_t sum = 0;
    for (int e = 0; e < dim && q; e++)
        most = fmaxf(most, fabsf(q[e]));
    const float by = most > FAR_LEAST ? FAR_QUERY_LEVELS / most : 0;
    for (int e = 0; e < dim; e++) {
        const int8_t level = q ? (int8_t)rintf(q[e] * by) : 0;
        lanes[(e / 4 * FAR_LANES + row) * 4 + e % 4] = level;
        sum += level;
    }
    ((int32_t *)(void *)(lanes + (size_t)FAR_LANES * (size_t)dim))[row] = -128 * sum;
    return most / FAR_QUERY_LEVELS;
}
