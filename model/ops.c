#include "model/ops.h"

#include <math.h>
#include <stddef.h>

#include "base/cpu.h"

/* The loops below are written once, without intrinsics, and compiled three times for wider and wider registers
 * (OPS_VARIANT at the end); cpu_features() chooses. Not by target_clones: its resolvers run before a sanitizer is
 * ready. A sum keeps LANES partial sums, which the compiler may put in one register without reordering anything.
 */
enum { LANES = 16 };
#define INLINE static inline __attribute__((always_inline))

/* e^x for -87 <= x <= 87; beyond, the value at the border. e^x = 2^n e^r, |r| <= ln(2)/2, where adding and taking
 * away 1.5 * 2^23 rounds x / ln(2) to the integer n and leaves n in the low bits; ln(2) is split in two so that
 * n ln(2) is exact enough; e^r by its Taylor polynomial of degree 7, the error of which is below 1e-8.
 */
INLINE float exp_fast(float x)
{
    const float round = 12582912.0F, log2_e = 1.44269504F, ln2_high = 0.693145752F, ln2_low = 1.42860677e-6F;
    x = x > 87.0F ? 87.0F : x;
    x = x < -87.0F ? -87.0F : x;
    float shifted = x * log2_e + round;
    float n = shifted - round;
    float r = (x - n * ln2_high) - n * ln2_low;
    float p = 1.0F / 5040;
    p = p * r + 1.0F / 720;
    p = p * r + 1.0F / 120;
    p = p * r + 1.0F / 24;
    p = p * r + 1.0F / 6;
    p = p * r + 0.5F;
    p = p * r + 1.0F;
    p = p * r + 1.0F;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127U) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

INLINE float lanes_sum(const float lanes[LANES])
{
    float sums[LANES];
    memcpy(sums, lanes, sizeof sums);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            sums[i] += sums[i + half];
    return sums[0];
}

INLINE float sum_of_squares(const float *x, int64_t n)
{
    float lanes[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++)
            lanes[k] += x[i + k] * x[i + k];
    for (int k = 0; i + k < n; k++)
        lanes[k] += x[i + k] * x[i + k];
    return lanes_sum(lanes);
}

INLINE void norm_row(const struct rms_norm *norm, const float *x, void *out, enum dtype dtype)
{
    const int64_t n = norm->n;
    const float *weight = norm->weight;
    const float scale = 1.0F / sqrtf(sum_of_squares(x, n) / (float)n + norm->eps);
    float *as_f32 = out;
    bf16 *as_bf16 = out;
    if (dtype == DTYPE_BF16)
        for (int64_t i = 0; i < n; i++)
            as_bf16[i] = bf16_from_f32(x[i] * scale * weight[i]);
    else
        for (int64_t i = 0; i < n; i++)
            as_f32[i] = x[i] * scale * weight[i];
}

INLINE float silu(float g)
{
    return g / (1.0F + exp_fast(-g));
}

INLINE float gelu_tanh(float g)
{
    const float h = 1.59576912F * (g + 0.044715F * g * g * g); /* sqrt(8/pi) */
    return g / (1.0F + exp_fast(-h));
}

/* A row's gates, its ups, and where their products go; out may be up where that is f32. */
struct gate_row {
    const float *gate, *up;
    void *out;
    enum dtype dtype;
    int64_t n;
};

INLINE void gate_row(const struct gate_row *row, float (*activation)(float))
{
    float *as_f32 = row->out;
    bf16 *as_bf16 = row->out;
    if (row->dtype == DTYPE_BF16)
        for (int64_t i = 0; i < row->n; i++)
            as_bf16[i] = bf16_from_f32(activation(row->gate[i]) * row->up[i]);
    else
        for (int64_t i = 0; i < row->n; i++)
            as_f32[i] = activation(row->gate[i]) * row->up[i];
}

INLINE void store_row(const float *x, bf16 *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = bf16_from_f32(x[i]);
}

INLINE float largest(const float *x, int64_t n)
{
    float lanes[LANES];
    for (int k = 0; k < LANES; k++)
        lanes[k] = -INFINITY;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++)
            lanes[k] = x[i + k] > lanes[k] ? x[i + k] : lanes[k];
    float best = -INFINITY;
    for (; i < n; i++)
        best = x[i] > best ? x[i] : best;
    for (int k = 0; k < LANES; k++)
        best = lanes[k] > best ? lanes[k] : best;
    return best;
}

/* sum of e^(x - top), the long sum in double: partial sums of at most RUN elements in float. */
INLINE double sum_of_exps(const float *x, int64_t n, float top)
{
    enum { RUN = 64 * LANES };
    double sum = 0;
    int64_t i = 0;
    for (; i + RUN <= n; i += RUN) {
        float lanes[LANES] = {0};
        for (int j = 0; j < RUN; j += LANES)
            for (int k = 0; k < LANES; k++)
                lanes[k] += exp_fast(x[i + j + k] - top);
        sum += (double)lanes_sum(lanes);
    }
    for (; i < n; i++)
        sum += (double)exp_fast(x[i] - top);
    return sum;
}

struct ops_variant {
    void (*norm_row)(const struct rms_norm *norm, const float *x, void *out, enum dtype dtype);
    void (*gate_row[2])(const struct gate_row *row); /* by enum activation */
    void (*store_row)(const float *x, bf16 *out, int64_t n);
    float (*largest)(const float *x, int64_t n);
    double (*sum_of_exps)(const float *x, int64_t n, float top);
};

#define OPS_VARIANT(isa, attribute)                                                                                \
    attribute static void norm_row_##isa(const struct rms_norm *norm, const float *x, void *out, enum dtype dtype) \
    {                                                                                                              \
        norm_row(norm, x, out, dtype);                                                                             \
    }                                                                                                              \
    attribute static void silu_row_##isa(const struct gate_row *row)                                               \
    {                                                                                                              \
        gate_row(row, silu);                                                                                       \
    }                                                                                                              \
    attribute static void gelu_tanh_row_##isa(const struct gate_row *row)                                          \
    {                                                                                                              \
        gate_row(row, gelu_tanh);                                                                                  \
    }                                                                                                              \
    attribute static void store_row_##isa(const float *x, bf16 *out, int64_t n)                                    \
    {                                                                                                              \
        store_row(x, out, n);                                                                                      \
    }                                                                                                              \
    attribute static float largest_##isa(const float *x, int64_t n)                                                \
    {                                                                                                              \
        return largest(x, n);                                                                                      \
    }                                                                                                              \
    attribute static double sum_of_exps_##isa(const float *x, int64_t n, float top)                                \
    {                                                                                                              \
        return sum_of_exps(x, n, top);                                                                             \
    }                                                                                                              \
    static const struct ops_variant variant_##isa = {                                                              \
        norm_row_##isa,                                                                                            \
        {[ACTIVATION_SILU] = silu_row_##isa, [ACTIVATION_GELU_TANH] = gelu_tanh_row_##isa},                        \
        store_row_##isa,                                                                                           \
        largest_##isa,                                                                                             \
        sum_of_exps_##isa};

OPS_VARIANT(plain, )
OPS_VARIANT(avx2, __attribute__((target("avx2,fma"))))
OPS_VARIANT(avx512, __attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq"))))

static const struct ops_variant *variant_choose(void)
{
    struct cpu_features features = cpu_features();
    return features.avx512 ? &variant_avx512 : features.avx2_fma ? &variant_avx2 : &variant_plain;
}

void ops_rms_norm(const struct rms_norm *norm, const float *x, void *out, enum dtype dtype, int64_t rows)
{
    const struct ops_variant *variant = variant_choose();
    const size_t out_row = (size_t)norm->n * dtype_size(dtype);
    for (int64_t row = 0; row < rows; row++)
        variant->norm_row(norm, x + row * norm->n, (char *)out + (size_t)row * out_row, dtype);
}

void ops_gate(const struct ops_gate *gate, const float *gate_up, void *out, enum dtype dtype, int64_t rows)
{
    const struct ops_variant *variant = variant_choose();
    const size_t out_row = (size_t)gate->ffn * dtype_size(dtype);
    for (int64_t i = 0; i < rows; i++) {
        const float *gates = gate_up + i * 2 * gate->ffn;
        const struct gate_row row = {gates, gates + gate->ffn, (char *)out + (size_t)i * out_row, dtype, gate->ffn};
        variant->gate_row[gate->activation](&row);
    }
}

void ops_gate_apart(enum activation activation, const float *gates, float *up, int64_t n)
{
    const struct gate_row row = {gates, up, up, DTYPE_F32, n};
    variant_choose()->gate_row[activation](&row);
}

void ops_add(float *x, const float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] += y[i];
}

void ops_store(const float *x, void *out, enum dtype dtype, int64_t n)
{
    if (dtype == DTYPE_BF16)
        variant_choose()->store_row(x, out, n);
    else
        memcpy(out, x, (size_t)n * sizeof *x);
}

void ops_embed(const struct tensor *embedding, const int32_t *ids, int64_t n, float scale, float *out)
{
    const int64_t width = embedding->dims[0];
    const size_t row = tensor_row_bytes(embedding->type, width);
    for (int64_t i = 0; i < n; i++)
        tensor_row_to_f32(embedding->type, (const char *)embedding->data + (size_t)ids[i] * row, out + i * width,
                          width);
    if (scale != 1.0F)
        for (int64_t i = 0; i < n * width; i++)
            out[i] *= scale;
}

struct ops_logprob ops_log_softmax(const float *logits, int64_t n, int64_t id)
{
    const struct ops_variant *variant = variant_choose();
    const float top = variant->largest(logits, n);
    const double log_sum_exp = (double)top + log(variant->sum_of_exps(logits, n, top));
    int64_t at = 0;
    while (at < n - 1 && !(logits[at] >= top))
        at++;
    return (struct ops_logprob){
        .log_sum_exp = (float)log_sum_exp,
        .logprob = (float)((double)logits[id] - log_sum_exp),
        .top = (int32_t)at,
    };
}
