/* Rows of numbers between f32, in which we compute, and the dtype in which they are kept. */
#ifndef LONGHAUL_ATTENTION_ROWS_H
#define LONGHAUL_ATTENTION_ROWS_H

#include <stddef.h>
#include <stdint.h>

#include "base/num.h"

/* out [n] of that dtype = in [n], rounded to nearest. */
void row_from_f32(enum dtype dtype, const float *in, void *out, int64_t n);

/* out [n] = in [n] of that dtype. */
void row_to_f32(enum dtype dtype, const void *in, float *out, int64_t n);

/* A raw key as the model computed it: out [dim] = in [dim] of that dtype + offset [dim], unless that is NULL. */
void key_to_f32(enum dtype dtype, const void *in, const float *offset, float *out, int dim);

/* The offset [dim] of a head's keys in offsets [kv_heads][dim]; NULL where there are none. */
static inline const float *key_offset_of(const float *offsets, int kv_head, int dim)
{
    return offsets ? offsets + (size_t)kv_head * (size_t)dim : NULL;
}

#endif
