/* The part of cuBLASLt that the program calls: products of bf16 matrices into f32 ones, with a bias or without,
 * summed one after the other. What the caller would get wrong results or a refusal for is refused here. */
#include "simt.h"

#include <cublasLt.h>

namespace
{

struct product {
    bool turn_a, with_bias;
    const float *bias;
};

struct layout {
    cudaDataType type;
    uint64_t rows, columns;
    int64_t stride;
};

struct preference {
    uint64_t workspace;
    uint32_t alignments[4]; /* of A, B, C, D */
};

/* What a choice was made for. */
struct choice {
    uint64_t m, n, k, workspace;
    uint32_t alignments[4];
};

template <class T, class Opaque> T *inside(Opaque *opaque)
{
    static_assert(sizeof(T) <= sizeof(Opaque), "an opaque object has no room for what is in it");
    return reinterpret_cast<T *>(opaque);
}

const struct layout *inside(cublasLtMatrixLayout_t opaque)
{
    return inside<struct layout>(opaque);
}

/* op(A) [m][k] times B [k][n] into D [m][n]. */
bool fits(const struct product *p, const struct layout *a, const struct layout *b, const struct layout *d)
{
    return p->turn_a && a->type == CUDA_R_16BF && b->type == CUDA_R_16BF && d->type == CUDA_R_32F &&
           a->rows == b->rows && a->columns == d->rows && b->columns == d->columns;
}

float number(const uint16_t *at)
{
    return __uint_as_float((unsigned)*at << 16);
}

} // namespace

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    static int one;
    *handle = reinterpret_cast<cublasLtHandle_t>(&one);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t)
{
    return CUBLAS_STATUS_SUCCESS;
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED" : "CUBLAS_STATUS_INVALID_VALUE";
}

/* ---- descriptions ---- */

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    *out = new cublasLtMatmulDescOpaque_t();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    delete desc;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    struct product *product = inside<struct product>(desc);
    if (attribute == CUBLASLT_MATMUL_DESC_TRANSA && bytes == sizeof(cublasOperation_t)) {
        product->turn_a = *(const cublasOperation_t *)value == CUBLAS_OP_T;
    } else if (attribute == CUBLASLT_MATMUL_DESC_EPILOGUE && bytes == sizeof(cublasLtEpilogue_t)) {
        product->with_bias = *(const cublasLtEpilogue_t *)value == CUBLASLT_EPILOGUE_BIAS;
    } else if (attribute == CUBLASLT_MATMUL_DESC_BIAS_POINTER && bytes == sizeof(void *)) {
        product->bias = *(const float *const *)value;
    } else {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t stride)
{
    if (rows == 0 || columns == 0 || stride < (int64_t)rows)
        return CUBLAS_STATUS_INVALID_VALUE;
    *out = new cublasLtMatrixLayoutOpaque_t();
    *inside<struct layout>(*out) = {type, rows, columns, stride};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- choosing ---- */

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out)
{
    *out = new cublasLtMatmulPreferenceOpaque_t();
    *inside<struct preference>(*out) = {0, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t opaque,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes)
{
    struct preference *preference = inside<struct preference>(opaque);
    const int matrix = attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES;
    if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES && bytes == sizeof preference->workspace)
        memcpy(&preference->workspace, value, bytes);
    else if (matrix >= 0 && matrix < 4 && bytes == sizeof *preference->alignments)
        memcpy(&preference->alignments[matrix], value, bytes);
    else
        return CUBLAS_STATUS_INVALID_VALUE;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t product,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t opaque, int,
                                              cublasLtMatmulHeuristicResult_t *out, int *found)
{
    const struct preference *preference = inside<struct preference>(opaque);
    struct choice choice = {inside(d)->rows, inside(d)->columns, inside(a)->rows, preference->workspace, {}};
    memcpy(choice.alignments, preference->alignments, sizeof choice.alignments);
    *found = fits(inside<struct product>(product), inside(a), inside(b), inside(d));
    if (!*found)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    memset(out, 0, sizeof *out);
    *inside<struct choice>(&out->algo) = choice;
    out->state = CUBLAS_STATUS_SUCCESS;
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- a product ---- */

struct operand {
    struct layout layout;
    const void *at;
};

static void multiply(const struct product &product, const struct operand &a, const struct operand &b,
                     const struct layout &d, float *out)
{
    simt::device_opens();
    for (uint64_t column = 0; column < d.columns; column++)
        for (uint64_t row = 0; row < d.rows; row++) {
            const uint16_t *of_a = (const uint16_t *)a.at + row * a.layout.stride,
                           *of_b = (const uint16_t *)b.at + column * b.layout.stride;
            float sum = 0;
            for (uint64_t k = 0; k < a.layout.rows; k++)
                sum += number(of_a + k) * number(of_b + k);
            out[column * d.stride + row] = product.with_bias ? sum + product.bias[row] : sum;
        }
    simt::device_closes();
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void *alpha, const void *A,
                              cublasLtMatrixLayout_t a_layout, const void *B, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *C, cublasLtMatrixLayout_t, void *D,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algorithm,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    const struct product *product = inside<struct product>(desc);
    const struct layout *a = inside(a_layout), *b = inside(b_layout), *d = inside(d_layout);
    const struct choice *choice = inside<const struct choice>(algorithm);
    const void *places[4] = {A, B, C, D};
    if (!fits(product, a, b, d) || *(const float *)alpha != 1 || *(const float *)beta != 0 ||
        (product->with_bias && !product->bias) || !workspace || workspace_bytes < choice->workspace ||
        choice->m != d->rows || choice->n != d->columns || choice->k != a->rows)
        return CUBLAS_STATUS_INVALID_VALUE;
    for (int i = 0; i < 4; i++)
        if ((uintptr_t)places[i] % choice->alignments[i] != 0)
            return CUBLAS_STATUS_INVALID_VALUE;
    simt::queue(stream, [product = *product, a = *a, b = *b, d = *d, A, B, D] {
        multiply(product, {a, A}, {b, B}, d, (float *)D);
    });
    return CUBLAS_STATUS_SUCCESS;
}
