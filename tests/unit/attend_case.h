/* Attention on a GPU held against a dense fp64 answer: one made-up problem, run by one kernel. For the unit test
 * and the benchmark; it needs no more than the CUDA runtime and base/error.h. */
#ifndef LONGHAUL_TESTS_ATTEND_CASE_H
#define LONGHAUL_TESTS_ATTEND_CASE_H

#include "attention/attend_cuda.h"

enum attend_sight {
    SEES_PAST,   /* causal: the tokens are the last ones of the keys, or begin before them */
    SEES_ALL,    /* every key */
    SEES_WINDOW, /* the last 70 of what causal shows */
    SEES_PARTS   /* from somewhere to somewhere, both rising with the token; every third token sees nothing */
};

struct attend_case {
    int dim, group;
    int64_t tokens, keys;
    enum attend_sight sight;
    int calls;        /* the keys are attended to in so many pieces, cut anywhere */
    bool pages, bias; /* tiles of keys lie in any order; scores have a bias */
    float size;       /* standard deviation of the scores in base 2 */
    uint64_t seed;
};

struct attend_errors {
    double o, lse;     /* the largest differences from fp64; the values are about normal, of variance 1 */
    int64_t disturbed; /* rows that saw nothing in a call and were changed by it */
};

/* 0; or -1 where CUDA refuses. */
int attend_case_run(const struct attend_cuda_kernel *kernel, const struct attend_case *one,
                    struct attend_errors *out, struct error *err);

#endif
