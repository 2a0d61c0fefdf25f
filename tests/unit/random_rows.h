/* Rows of weights of any type at random, for tests of what reads them. */
#ifndef LONGHAUL_TESTS_UNIT_RANDOM_ROWS_H
#define LONGHAUL_TESTS_UNIT_RANDOM_ROWS_H

#include <stdint.h>
#include <string.h>

#include "base/tensor.h"

static inline uint32_t random_next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Where the half-precision scales of a block are; -1: there is none. */
static const struct {
    int first, second;
} scales[TENSOR_TYPE_COUNT] = {
    [TENSOR_F32] = {-1, -1},   [TENSOR_F16] = {0, -1},    [TENSOR_BF16] = {-1, -1}, [TENSOR_Q4_0] = {0, -1},
    [TENSOR_Q4_1] = {0, 2},    [TENSOR_Q5_0] = {0, -1},   [TENSOR_Q5_1] = {0, 2},   [TENSOR_Q8_0] = {0, -1},
    [TENSOR_Q2_K] = {80, 82},  [TENSOR_Q3_K] = {108, -1}, [TENSOR_Q4_K] = {0, 2},   [TENSOR_Q5_K] = {0, 2},
    [TENSOR_Q6_K] = {208, -1},
};

/* A finite half, now and then subnormal. */
static inline void random_half(uint8_t *half, uint32_t *state)
{
    uint16_t bits = (uint16_t)(random_next(state) & 0x83ffu);
    bits |= (uint16_t)(random_next(state) % 12 << 10);
    memcpy(half, &bits, sizeof bits);
}

/* Random bytes, but scales and plain numbers that are finite. */
static inline void random_row(uint8_t *row, size_t bytes, enum tensor_type type, uint32_t *state)
{
    const size_t block = tensor_block_bytes(type);
    for (size_t i = 0; i < bytes; i++)
        row[i] = (uint8_t)random_next(state);
    for (size_t at = 0; at < bytes; at += block) {
        if (type == TENSOR_F32 || type == TENSOR_BF16)
            row[at + block - 1] = (row[at + block - 1] & 0x80) | 0x3e;
        if (scales[type].first >= 0)
            random_half(row + at + scales[type].first, state);
        if (scales[type].second >= 0)
            random_half(row + at + scales[type].second, state);
    }
}

#endif
