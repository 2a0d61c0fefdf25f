#include "attention/decode.h"

static const struct decode_variant *const variants[] = {&decode_variant_avx512, &decode_variant_avx2,
                                                        &decode_variant_c};

const struct decode_variant *const *decode_variants(int *n_out)
{
    *n_out = sizeof variants / sizeof variants[0];
    return variants;
}

const struct decode_variant *decode_choose(void)
{
    int i = 0;
    while (!variants[i]->supported())
        i++;
    return variants[i];
}
