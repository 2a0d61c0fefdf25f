/* Numbers: element types, bfloat16, and arithmetic that says when it overflows. */
#ifndef LONGHAUL_BASE_NUM_H
#define LONGHAUL_BASE_NUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The arithmetic of linear layers and attention, and so the type of what is kept in memory. */
enum dtype { DTYPE_F32, DTYPE_BF16 };

typedef uint16_t bf16; /* the upper half of an IEEE binary32 */

static inline size_t dtype_size(enum dtype type)
{
    return type == DTYPE_BF16 ? sizeof(bf16) : sizeof(float);
}

static inline const char *dtype_name(enum dtype type)
{
    return type == DTYPE_BF16 ? "bf16" : "f32";
}

static inline float bf16_to_f32(bf16 x)
{
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Round to nearest, ties to even; a NaN stays a NaN. */
static inline bf16 bf16_from_f32(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (bf16)(bits >> 16 | 0x40u);
    return (bf16)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* *out = a * b (or a + b); false where the true value does not fit. */
static inline bool size_mul(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool size_add(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

/* first <= i < end */
struct stretch {
    int64_t first, end;
};

static inline int64_t i64_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t i64_max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* a / b, rounded up; a >= 0, b > 0. */
static inline int64_t i64_ceil_div(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

static inline int64_t i64_round_up(int64_t a, int64_t b)
{
    return i64_ceil_div(a, b) * b;
}

#endif
