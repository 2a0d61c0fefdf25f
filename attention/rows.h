/* Rows of numbers between f32, in which we compute, and the dtype in which they are kept. */
#ifndef LONGHAUL_ATTENTION_ROWS_H
#define LONGHAUL_ATTENTION_ROWS_H

#include <stdint.h>

#include "base/num.h"

/* out [n] of that dtype = in [n], rounded to nearest. */
void row_from_f32(enum dtype dtype, const float *in, void *out, int64_t n);

/* out [n] = in [n] of that dtype. */
void row_to_f32(enum dtype dtype, const void *in, float *out, int64_t n);

#endif
