#include "base/tensor.h"

#include <string.h>

#include "base/num.h"
#include "base/quant.h"

static void f32_row(const uint8_t *row, float *out, int64_t n)
{
    memcpy(out, row, (size_t)n * sizeof *out);
}

static void f16_row(const uint8_t *row, float *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = f16_load(row + 2 * i);
}

static void bf16_row(const uint8_t *row, float *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        bf16 x;
        memcpy(&x, row + 2 * i, sizeof x);
        out[i] = bf16_to_f32(x);
    }
}

struct type_info {
    const char *name;
    int elements;                                                 /* of a block */
    size_t bytes;                                                 /* of a block */
    void (*plain_row)(const uint8_t *row, float *out, int64_t n); /* NULL: quantised, see base/quant.h */
};

static const struct type_info types[TENSOR_TYPE_COUNT] = {
    [TENSOR_F32] = {"F32", 1, 4, f32_row},    [TENSOR_F16] = {"F16", 1, 2, f16_row},
    [TENSOR_BF16] = {"BF16", 1, 2, bf16_row}, [TENSOR_Q4_0] = {"Q4_0", 32, 18, NULL},
    [TENSOR_Q4_1] = {"Q4_1", 32, 20, NULL},   [TENSOR_Q5_0] = {"Q5_0", 32, 22, NULL},
    [TENSOR_Q5_1] = {"Q5_1", 32, 24, NULL},   [TENSOR_Q8_0] = {"Q8_0", 32, 34, NULL},
    [TENSOR_Q2_K] = {"Q2_K", 256, 84, NULL},  [TENSOR_Q3_K] = {"Q3_K", 256, 110, NULL},
    [TENSOR_Q4_K] = {"Q4_K", 256, 144, NULL}, [TENSOR_Q5_K] = {"Q5_K", 256, 176, NULL},
    [TENSOR_Q6_K] = {"Q6_K", 256, 210, NULL},
};

const char *tensor_type_name(enum tensor_type type)
{
    return types[type].name;
}

int tensor_block_elements(enum tensor_type type)
{
    return types[type].elements;
}

size_t tensor_block_bytes(enum tensor_type type)
{
    return types[type].bytes;
}

size_t tensor_row_bytes(enum tensor_type type, int64_t n)
{
    return (size_t)(n / types[type].elements) * types[type].bytes;
}

int64_t tensor_rows(const struct tensor *tensor)
{
    return tensor->dims[1] * tensor->dims[2] * tensor->dims[3];
}

/* Groups of a length known to the compiler, so that the inner loop becomes a few vector instructions. */
static inline void expand(const struct quant_block *block, int elements, int group, float *out)
{
    for (int g = 0; g < elements / group; g++)
        for (int i = 0; i < group; i++)
            out[g * group + i] = block->scale[g] * (float)block->q[g * group + i] + block->offset[g];
}

void tensor_row_to_f32(enum tensor_type type, const void *row, float *out, int64_t n)
{
    const struct type_info *info = &types[type];
    if (info->plain_row) {
        info->plain_row(row, out, n);
        return;
    }
    const struct quant_layout *layout = quant_layout(type);
    struct quant_block block;
    for (int64_t b = 0; b < n / info->elements; b++) {
        layout->unpack((const uint8_t *)row + (size_t)b * info->bytes, &block);
        if (layout->group == 32)
            expand(&block, info->elements, 32, out + b * info->elements);
        else
            expand(&block, info->elements, 16, out + b * info->elements);
    }
}
