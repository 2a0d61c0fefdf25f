#include "attention/far_score_body.inc"

static bool supported(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

const struct far_scorer far_scorer_avx2 = {"avx2", supported, read, best, share, weigh, mix};
