#include "attention/kernel.h"

#include <math.h>
#include <string.h>

#include "attention/kernel_strip.h"
#include "base/cpu.h"

/* Fastest first, which is also what asks most of a CPU first; is_slow_here() knows the exception. */
static const struct attn_kernel *const kernels[] = {
    &attn_kernel_avx512_f32, &attn_kernel_avx512_bf16, &attn_kernel_avx512_bf16_fma, &attn_kernel_avx2_f32,
    &attn_kernel_avx2_bf16,  &attn_kernel_c_f32,       &attn_kernel_c_bf16,
};
enum { N_KERNELS = sizeof kernels / sizeof kernels[0] };

const struct attn_kernel *const *attn_kernels(int *n_out)
{
    *n_out = N_KERNELS;
    return kernels;
}

static const struct attn_kernel *find_named(enum dtype dtype, const char *name, struct error *err)
{
    for (int i = 0; i < N_KERNELS; i++) {
        if (strcmp(kernels[i]->name, name) != 0)
            continue;
        if (kernels[i]->dtype != dtype)
            error_set(err, ERROR_USAGE, "attention kernel \"%s\": is for %s, asked for %s", name,
                      dtype_name(kernels[i]->dtype), dtype_name(dtype));
        else if (!kernels[i]->supported())
            error_set(err, ERROR_USAGE, "attention kernel \"%s\": this CPU lacks its instructions", name);
        else
            return kernels[i];
        return NULL;
    }
    error_set(err, ERROR_USAGE, "attention kernel \"%s\": unknown", name);
    return NULL;
}

static bool is_slow_here(const struct attn_kernel *kernel)
{
    return kernel == &attn_kernel_avx512_bf16 && !cpu_features().fast_bf16;
}

const struct attn_kernel *attn_kernel_choose(enum dtype dtype, const char *name, struct error *err)
{
    if (name)
        return find_named(dtype, name, err);
    for (int i = 0; i < N_KERNELS; i++)
        if (kernels[i]->dtype == dtype && kernels[i]->supported() && !is_slow_here(kernels[i]))
            return kernels[i];
    error_set(err, ERROR_INTERNAL, "attention: no kernel for %s", dtype_name(dtype));
    return NULL;
}

int attn_check_heads(int heads, int kv_heads, int dim, struct error *err)
{
    if (heads < 1 || kv_heads < 1 || heads % kv_heads != 0 || heads / kv_heads > ATTN_QUERY_ROWS)
        return error_set(err, ERROR_INPUT, "attention with %d heads over %d key heads is not supported", heads,
                         kv_heads);
    if (dim < 16 || dim % 16 != 0 || dim > ATTN_MAX_DIM)
        return error_set(err, ERROR_INPUT, "attention heads of %d dimensions are not supported", dim);
    return 0;
}

void attn_state_reset(const struct attn_state *state, int rows, int dim)
{
    memset(state->o, 0, (size_t)rows * (size_t)dim * sizeof *state->o);
    memset(state->l, 0, (size_t)rows * sizeof *state->l);
    for (int r = 0; r < rows; r++)
        state->m[r] = -INFINITY;
}

void attn_state_finish(const struct attn_state *state, int rows, int dim, float *lse)
{
    const float ln_2 = 0.69314718055994530942f;
    for (int r = 0; r < rows; r++) {
        float *o = state->o + (size_t)r * (size_t)dim, l = state->l[r];
        if (lse)
            lse[r] = l == 0 ? -INFINITY : state->m[r] * ln_2 + logf(l);
        if (l == 0)
            l = 1.0f; /* o is 0 and stays it */
        for (int d = 0; d < dim; d++)
            o[d] /= l;
    }
}

void attn_merge(float *o_a, float *lse_a, const float *o_b, const float *lse_b, int64_t rows, int dim)
{
    for (int64_t r = 0; r < rows; r++, o_a += dim, o_b += dim) {
        /* -inf - (-inf) has no value: two empty rows are an empty row, and need no arithmetic */
        if (lse_b[r] == -INFINITY)
            continue;
        float high = fmaxf(lse_a[r], lse_b[r]);
        float a = expf(lse_a[r] - high), b = expf(lse_b[r] - high), sum = a + b;
        lse_a[r] = high + logf(sum);
        for (int d = 0; d < dim; d++)
            o_a[d] = (o_a[d] * a + o_b[d] * b) / sum;
    }
}
