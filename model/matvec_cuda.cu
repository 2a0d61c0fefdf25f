#include "model/matvec_cuda.h"

#include <cuda_fp16.h>

#include "base/gpu.h"
#include "base/gpu_rows.cuh"

/* A row is cut in units of 8 weights, two runs of 4 whose places in the block depend on the type, so that a warp
 * reads weights and x in whole lines of memory. A lane has every 32nd unit of a row.
 *
 * Each type below says what a block is (BLOCK elements in BYTES), where a unit's runs lie in it, and what its
 * weights are: scale * (byte - ZERO) + offset. The layouts are those of base/quant.c, which explains them.
 */
enum { UNIT = 8, RUN = 4 };

struct unit {
    uint32_t bytes[2]; /* of each run, the first weight in the lowest byte */
    float scale[2], offset[2];
};

/* ---- reading; blocks begin at even addresses, those of some types at multiples of 4 ---- */

static __device__ __forceinline__ uint32_t word_at_even(const uint8_t *at)
{
    const uint16_t *halves = (const uint16_t *)at;
    return halves[0] | (uint32_t)halves[1] << 16;
}

static __device__ __forceinline__ uint32_t word_at(const uint8_t *at)
{
    return *(const uint32_t *)at;
}

static __device__ __forceinline__ float half_at(const uint8_t *at)
{
    return __half2float(*(const __half *)at);
}

static __device__ __forceinline__ uint32_t low_nibbles(uint32_t word)
{
    return word & 0x0f0f0f0fu;
}

static __device__ __forceinline__ uint32_t high_nibbles(uint32_t word)
{
    return word >> 4 & 0x0f0f0f0fu;
}

/* 16 in byte i where bit i of four is set: the product has it at bit i + 7 i. */
static __device__ __forceinline__ uint32_t fifth_bits(uint32_t four)
{
    return ((four & 15) * 0x00204081u & 0x01010101u) << 4;
}

/* ---- blocks of 32: runs in the first and in the second half ---- */

struct block_of_32 {
    enum { BLOCK = 32, PLAIN = 0 };
    static __device__ __forceinline__ int2 runs(int unit)
    {
        return int2{RUN * unit, 16 + RUN * unit};
    }
};

struct q4_0 : block_of_32 {
    enum { BYTES = 18, ZERO = 8, OFFSET = 0 };
    static __device__ __forceinline__ struct unit load(const uint8_t *block, int unit)
    {
        const float scale = half_at(block);
        const uint32_t word = word_at_even(block + 2 + RUN * unit);
        return {{low_nibbles(word), high_nibbles(word)}, {scale, scale}, {}};
    }
};

struct q4_1 : block_of_32 {
    enum { BYTES = 20, ZERO = 0, OFFSET = 1 };
    static __device__ __forceinline__ struct unit load(const uint8_t *block, int unit)
    {
        const float scale = half_at(block), offset = half_at(block + 2);
        const uint32_t word = word_at(block + 4 + RUN * unit);
        return {{low_nibbles(word), high_nibbles(word)}, {scale, scale}, {offset, offset}};
    }
};

struct q5_0 : block_of_32 {
    enum { BYTES = 22, ZERO = 16, OFFSET = 0 };
    static __device__ __forceinline__ struct unit load(const uint8_t *block, int unit)
    {
        const float scale = half_at(block);
        const uint32_t high = word_at_even(block + 2) >> RUN * unit, word = word_at_even(block + 6 + RUN * unit);
        return {{low_nibbles(word) | fifth_bits(high), high_nibbles(word) | fifth_bits(high >> 16)},
                {scale, scale},
                {}};
    }
};

struct q5_1 : block_of_32 {
    enum { BYTES = 24, ZERO = 0, OFFSET = 1 };
    static __device__ __forceinline__ struct unit load(const uint8_t *block, int unit)
    {
        const float scale = half_at(block), offset = half_at(block + 2);
        const uint32_t high = word_at(block + 4) >> RUN * unit, word = word_at(block + 8 + RUN * unit);
        return {{low_nibbles(word) | fifth_bits(high), high_nibbles(word) | fifth_bits(high >> 16)},
                {scale, scale},
                {offset, offset}};
    }
};

/* Signed bytes: turning the top bit over adds 128. */
struct q8_0 : block_of_32 {
    enum { BYTES = 34, ZERO = 128, OFFSET = 0 };
    static __device__ __forceinline__ struct unit load(const uint8_t *block, int unit)
    {
        const float scale = half_at(block);
        return {{word_at_even(block + 2 + RUN * unit) ^ 0x80808080u,
                 word_at_even(block + 18 + RUN * unit) ^ 0x80808080u},
                {scale, scale},
                {}};
    }
};

/* ---- blocks of 256 ---- */

/* Eight units a pair of planes of 32 elements. */
struct block_of_256 {
    enum { BLOCK = 256, PLAIN = 0 };
    static __device__ __forceinline__ int2 runs(int unit)
    {
        const int first = unit / 8 * 64 + unit % 8 * RUN;
        return int2{first, first + 32};
    }
};

struct q2_k : block_of_256 {
    enum { BYTES = 84, ZERO = 0, OFFSET = 1 };
    static __device__ __forceinline__ struct unit load(const uint8_t *block, int unit)
    {
        const int plane = unit / 8 * 2, i = unit % 8 * RUN;
        const float d = half_at(block + 80), minimum = half_at(block + 82);
        const uint32_t word = word_at(block + 16 + plane / 4 * 32 + i) >> 2 * (plane % 4);
        const uint8_t *scales = block + 2 * plane + i / 16;
        return {{word & 0x03030303u, word >> 2 & 0x03030303u},
                {d * (float)(scales[0] & 15), d * (float)(scales[2] & 15)},
                {-(minimum * (float)(scales[0] >> 4)), -(minimum * (float)(scales[2] >> 4))}};
    }
};

struct q3_k : block_of_256 {
    enum { BYTES = 110, ZERO = 4, OFFSET = 0 };
    static __device__ __forceinline__ float scale(const uint8_t *scales, int group)
    {
        const int low = group < 8 ? scales[group] & 15 : scales[group - 8] >> 4;
        const int top = scales[8 + group % 4] >> 2 * (group / 4) & 3;
        return (float)((low | top << 4) - 32);
    }
    static __device__ __forceinline__ struct unit load(const uint8_t *block, int unit)
    {
        const int plane = unit / 8 * 2, i = unit % 8 * RUN, group = 2 * plane + i / 16;
        const float d = half_at(block + 108);
        const uint32_t word = word_at_even(block + 32 + plane / 4 * 32 + i) >> 2 * (plane % 4);
        const uint32_t high = word_at_even(block + i) >> plane;
        return {{(word & 0x03030303u) | (high & 0x01010101u) << 2,
                 (word >> 2 & 0x03030303u) | (high >> 1 & 0x01010101u) << 2},
                {d * scale(block + 96, group), d * scale(block + 96, group + 2)},
                {}};
    }
};

/* The scales and minima of groups 2 pair and 2 pair + 1, out of the 12 bytes behind d and dmin: see quant_k_scales.
 */
static __device__ __forceinline__ void k_scales(const uint8_t *block, int pair, struct unit &unit)
{
    const float d = half_at(block), minimum = half_at(block + 2);
    const uint32_t a = word_at(block + 4), b = word_at(block + 8), c = word_at(block + 12);
    const uint32_t scales = pair < 2 ? a & 0x3f3f3f3fu : low_nibbles(c) | (a >> 6 & 0x03030303u) << 4;
    const uint32_t minima = pair < 2 ? b & 0x3f3f3f3fu : high_nibbles(c) | (b >> 6 & 0x03030303u) << 4;
    for (int i = 0; i < 2; i++) {
        const int shift = 8 * (pair % 2 * 2 + i);
        unit.scale[i] = d * (float)(scales >> shift & 255);
        unit.offset[i] = -(minimum * (float)(minima >> shift & 255));
    }
}

struct q4_k : block_of_256 {
    enum { BYTES = 144, ZERO = 0, OFFSET = 1 };
    static __device__ __forceinline__ struct unit load(const uint8_t *block, int unit)
    {
        const int pair = unit / 8;
        const uint32_t word = word_at(block + 16 + RUN * unit);
        struct unit out = {{low_nibbles(word), high_nibbles(word)}, {}, {}};
        k_scales(block, pair, out);
        return out;
    }
};

struct q5_k : block_of_256 {
    enum { BYTES = 176, ZERO = 0, OFFSET = 1 };
    static __device__ __forceinline__ struct unit load(const uint8_t *block, int unit)
    {
        const int pair = unit / 8;
        const uint32_t word = word_at(block + 48 + RUN * unit);
        const uint32_t high = word_at(block + 16 + unit % 8 * RUN) >> 2 * pair;
        struct unit out = {
            {low_nibbles(word) | (high & 0x01010101u) << 4, high_nibbles(word) | (high >> 1 & 0x01010101u) << 4},
            {},
            {}};
        k_scales(block, pair, out);
        return out;
    }
};

/* Sixteen units a half of 128 elements, whose low nibbles are its first 64. */
struct q6_k {
    enum { BLOCK = 256, BYTES = 210, ZERO = 32, OFFSET = 0, PLAIN = 0 };
    static __device__ __forceinline__ int2 runs(int unit)
    {
        const int first = unit / 16 * 128 + unit % 16 * RUN;
        return int2{first, first + 64};
    }
    static __device__ __forceinline__ struct unit load(const uint8_t *block, int unit)
    {
        const int half = unit / 16, i = unit % 16 * RUN;
        const float d = half_at(block + 208);
        const uint32_t word = word_at_even(block + 64 * half + i);
        const uint32_t high = word_at_even(block + 128 + 32 * half + i % 32) >> 2 * (i / 32);
        const int8_t *scales = (const int8_t *)block + 192 + 8 * half + i / 16;
        return {
            {low_nibbles(word) | (high & 0x03030303u) << 4, high_nibbles(word) | (high >> 4 & 0x03030303u) << 4},
            {d * (float)scales[0], d * (float)scales[4]},
            {}};
    }
};

/* ---- the types without blocks ---- */

template <class T> struct plain {
    enum { BLOCK = UNIT, BYTES = UNIT * sizeof(T), PLAIN = 1 };
    typedef T number;
    static __device__ __forceinline__ int2 runs(int)
    {
        return int2{0, RUN};
    }
};

static __device__ __forceinline__ float to_f32(float x)
{
    return x;
}

static __device__ __forceinline__ float to_f32(__half x)
{
    return __half2float(x);
}

static __device__ __forceinline__ float to_f32(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

/* ---- a unit times its part of x ---- */

/* The runs of x that a unit meets, and their sums, which an offset is multiplied by. */
struct part {
    float x[2][RUN], sum[2];
};

template <class Type>
static __device__ __forceinline__ float dot_quantised(const uint8_t *block, int unit, const struct part &part)
{
    const struct unit loaded = Type::load(block, unit);
    float sum = 0;
    for (int run = 0; run < 2; run++) {
        float of_bytes = 0;
        for (int k = 0; k < RUN; k++) {
            /* 0x4b0000bb is 2^23 + bb: cheaper than a conversion */
            const float biased = __uint_as_float(__byte_perm(loaded.bytes[run], 0x4b000000u, 0x7440u + k));
            of_bytes += (biased - (8388608.0f + Type::ZERO)) * part.x[run][k];
        }
        sum += loaded.scale[run] * of_bytes;
        if (Type::OFFSET)
            sum += loaded.offset[run] * part.sum[run];
    }
    return sum;
}

/* 16 or 32 bytes at once. */
template <class Type>
static __device__ __forceinline__ float dot_plain(const uint8_t *block, const struct part &part)
{
    uint4 loaded[Type::BYTES / sizeof(uint4)];
    typename Type::number weights[UNIT];
    for (int i = 0; i < (int)(Type::BYTES / sizeof(uint4)); i++)
        loaded[i] = ((const uint4 *)block)[i];
    memcpy(weights, loaded, sizeof weights);
    float sum = 0;
    for (int k = 0; k < UNIT; k++)
        sum += to_f32(weights[k]) * part.x[k / RUN][k % RUN];
    return sum;
}

/* ---- a warp a row, or ROWS rows, which share what is read of x ---- */

struct product {
    const uint8_t *rows;
    size_t row_bytes;
    int64_t n, n_rows;
    const float *x;
    float *y;
};

template <class Type>
static __device__ __forceinline__ float dot(const uint8_t *block, int unit, const struct part &part)
{
    if constexpr (Type::PLAIN)
        return dot_plain<Type>(block, part);
    else
        return dot_quantised<Type>(block, unit, part);
}

static __device__ __forceinline__ void load_part(struct part &part, const float *x, int2 runs)
{
    gpu_load(part.x[0], x + runs.x);
    gpu_load(part.x[1], x + runs.y);
    for (int run = 0; run < 2; run++)
        part.sum[run] = (part.x[run][0] + part.x[run][1]) + (part.x[run][2] + part.x[run][3]);
}

/* Rows that are no multiple of a unit, which only the plain types have: they are not aligned either. */
template <class Type> static __device__ float dot_uneven(const struct product &product, int64_t row)
{
    float sum = 0;
    if constexpr (Type::PLAIN) {
        const auto *weights = (const typename Type::number *)(product.rows + row * product.row_bytes);
        for (int64_t i = threadIdx.x % GPU_WARP; i < product.n; i += GPU_WARP)
            sum += to_f32(weights[i]) * product.x[i];
    }
    return sum;
}

template <class Type, int ROWS>
static __device__ void dot_even(const struct product &product, int64_t first, float (&sums)[ROWS])
{
    enum { UNITS = Type::BLOCK / UNIT };
    const uint8_t *rows[ROWS];
    for (int r = 0; r < ROWS; r++) /* behind the last row: the last one again, for nothing */
        rows[r] = product.rows + (size_t)min(first + r, product.n_rows - 1) * product.row_bytes;
    for (int64_t u = threadIdx.x % GPU_WARP; u < product.n / UNIT; u += GPU_WARP) {
        const int64_t block = u / UNITS;
        const int unit = (int)(u % UNITS);
        struct part part;
        load_part(part, product.x + block * Type::BLOCK, Type::runs(unit));
        for (int r = 0; r < ROWS; r++)
            sums[r] += dot<Type>(rows[r] + block * Type::BYTES, unit, part);
    }
}

template <class Type, int ROWS> static __global__ void matvec_kernel(const struct product product)
{
    const int64_t first = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / GPU_WARP * ROWS;
    if (first >= product.n_rows)
        return;
    float sums[ROWS] = {};
    if (product.n % UNIT == 0)
        dot_even<Type, ROWS>(product, first, sums);
    else
        for (int r = 0; r < ROWS && first + r < product.n_rows; r++)
            sums[r] = dot_uneven<Type>(product, first + r);
    for (int r = 0; r < ROWS; r++) {
        const float sum = gpu_warp_sum(sums[r]);
        if (threadIdx.x % GPU_WARP == 0 && first + r < product.n_rows)
            product.y[first + r] = sum;
    }
}

/* A warp that shares x among more rows asks the cache for less, but only tall matrices have enough rows to keep all
 * warps of a GPU busy that way. */
template <class Type> static void launch(const struct product *product, cudaStream_t stream)
{
    enum { WARPS = 4, SOME_ROWS = 4096, MANY_ROWS = 16384 };
    const int rows = product->n_rows >= MANY_ROWS ? 4 : product->n_rows >= SOME_ROWS ? 2 : 1;
    const auto matvec = rows == 4   ? matvec_kernel<Type, 4>
                        : rows == 2 ? matvec_kernel<Type, 2>
                                    : matvec_kernel<Type, 1>;
    const int64_t blocks = (product->n_rows + WARPS * rows - 1) / (WARPS * rows);
    GPU_LAUNCH(matvec, (unsigned)blocks, WARPS * GPU_WARP, 0, stream, *product);
}

typedef void launcher(const struct product *product, cudaStream_t stream);

static launcher *launcher_of(enum tensor_type type)
{
    switch (type) {
    case TENSOR_F32:
        return launch<plain<float>>;
    case TENSOR_F16:
        return launch<plain<__half>>;
    case TENSOR_BF16:
        return launch<plain<__nv_bfloat16>>;
    case TENSOR_Q4_0:
        return launch<q4_0>;
    case TENSOR_Q4_1:
        return launch<q4_1>;
    case TENSOR_Q5_0:
        return launch<q5_0>;
    case TENSOR_Q5_1:
        return launch<q5_1>;
    case TENSOR_Q8_0:
        return launch<q8_0>;
    case TENSOR_Q2_K:
        return launch<q2_k>;
    case TENSOR_Q3_K:
        return launch<q3_k>;
    case TENSOR_Q4_K:
        return launch<q4_k>;
    case TENSOR_Q5_K:
        return launch<q5_k>;
    case TENSOR_Q6_K:
        return launch<q6_k>;
    case TENSOR_TYPE_COUNT:
        break;
    }
    return NULL;
}

int matvec_cuda(const struct tensor *w, const struct matvec_cuda_vector *vector, cudaStream_t stream,
                struct error *err)
{
    const struct product product = {(const uint8_t *)w->data,
                                    tensor_row_bytes(w->type, w->dims[0]),
                                    w->dims[0],
                                    tensor_rows(w),
                                    vector->x,
                                    vector->y};
    launcher *const launch = launcher_of(w->type);
    if (!launch || (uintptr_t)w->data % MATVEC_CUDA_ALIGN != 0 || (uintptr_t)vector->x % MATVEC_CUDA_ALIGN != 0)
        return error_set(err, ERROR_INTERNAL, "tensor %s times a vector on a GPU: rows or vector are not aligned",
                         w->name);
    launch(&product, stream);
    return gpu_check_launch("a matrix times a vector", err);
}
