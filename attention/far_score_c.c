#include "attention/far_score_body.inc"

static bool supported(void)
{
    return true;
}

const struct far_scorer far_scorer_c = {"c", supported, read, best, share, weigh, mix};
