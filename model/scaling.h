/* The position method that a model's file asks for, from the keys "{arch}.rope.scaling.*" of GGUF. */
#ifndef LONGHAUL_MODEL_SCALING_H
#define LONGHAUL_MODEL_SCALING_H

#include "attention/position_method.h"
#include "base/bundle.h"
#include "base/error.h"
#include "model/arch.h"

struct scaling {
    struct position_method method; /* trained: original_context_length, or else context_length; its lists of factors
                                      stay NULL */
    int64_t context;               /* tokens that positions reach: context_length, or the factor times
                                      original_context_length where the file has it and that is more */
};

/* LongRoPE's lists of factors are tensors (rope_factors_long.weight and _short): `has_factors` says whether the
 * file has them; they alone make the method LongRoPE. ERROR_INPUT names the key that is unknown or impossible. */
int scaling_read(const struct arch *arch, const struct bundle *bundle, bool has_factors, struct scaling *out,
                 struct error *err);

#endif
