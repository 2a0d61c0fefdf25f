/* Attention by mma.sync, for cards from sm_80 on. (Dao 2023, "FlashAttention-2".)
 *
 * A block has 128 query rows, a warp 16 of them with all their scores, weights and values in its registers. Keys
 * and values come 64 rows at a time through a ring of slots in shared memory: K of the first tile, V of it, K of
 * the next, and so on; one is being read while the next ones are under way. The weights never leave the registers:
 * the accumulators of the first product are, rounded to bf16, the A operand of the second.
 */
#include "attention/attend_split.h"
#include "attention/attend_tile.cuh"
#include "base/gpu.h"

enum { WARPS = 8, THREADS = 32 * WARPS, ROWS = 16 * WARPS, KEYS = ATTEND_PAGE, KEY_BLOCKS = KEYS / 8 };

/* How rows of DIM numbers lie in shared memory: in chunks of 16 bytes, so that the same chunk of 8 rows in a row,
 * which ldmatrix reads at once, comes from 8 different groups of banks. */
template <int DIM> struct shape {
    static constexpr int CHUNKS = DIM / 8, STEPS = DIM / 16;
    static constexpr bool TURNS = CHUNKS % 8 == 0; /* by exchanging chunks; else an odd length of rows does it */
    static constexpr int STRIDE = TURNS ? CHUNKS : CHUNKS | 1;
    static constexpr int SLOTS = DIM > 128 ? 3 : 4;
    static constexpr bool KEEPS_QUERIES = DIM <= 128; /* in registers */
    static constexpr int SLOT_BYTES = KEYS * STRIDE * 16, QUERY_BYTES = ROWS * STRIDE * 16;
    static constexpr int FOUND_BYTES = 2 * WARPS * sizeof(int);
    static constexpr int SHARED_BYTES = QUERY_BYTES + SLOTS * SLOT_BYTES + FOUND_BYTES;
    static constexpr int BLOCKS_PER_SM = DIM <= 80 ? 2 : 1;

    static __device__ __forceinline__ int place(int row, int chunk)
    {
        return 16 * (row * STRIDE + (TURNS ? chunk ^ (row & 7) : chunk));
    }

    /* The same for chunk even + odd, odd being 0 or 1, of a row, and then 8 or 16 rows on, as a lane meets them:
     * what depends on the lane is got once, lane_part(row, odd), and the rest are constants. */
    static __device__ __forceinline__ int lane_part(int row, int odd)
    {
        return TURNS ? 16 * (odd ^ (row & 7)) : 16 * odd;
    }
    static __device__ __forceinline__ int place_of_lane(int row, int even, int part)
    {
        return 16 * row * STRIDE + (TURNS ? 16 * even ^ part : 16 * even + part);
    }
};

/* What a block walks: items 2 i and 2 i + 1 are K and V of tile first_tile + i. */
struct walk {
    struct attend_tile tile;
    int first_tile, items;
    unsigned char *queries, *slots;
};

/* N_ROWS rows of DIM numbers that follow each other in global memory; beyond `there` of them zeros. */
template <int DIM, int N_ROWS>
static __device__ __forceinline__ void copy_rows(unsigned char *to, const __nv_bfloat16 *from, int there)
{
#pragma unroll
    for (int first = 0; first < N_ROWS * shape<DIM>::CHUNKS; first += THREADS) {
        const int i = first + (int)threadIdx.x, row = i / shape<DIM>::CHUNKS, chunk = i % shape<DIM>::CHUNKS;
        if (row < N_ROWS)
            gpu_copy16_async(to + shape<DIM>::place(row, chunk), from + (row < there ? 8 * i : 0), row < there);
    }
}

template <int DIM>
static __device__ __forceinline__ void begin_queries(const struct attend_cuda &call, const struct walk &walk)
{
    const int64_t at = walk.tile.head * walk.tile.rows + walk.tile.first;
    copy_rows<DIM, ROWS>(walk.queries, (const __nv_bfloat16 *)call.q + at * DIM,
                         (int)min((int64_t)ROWS, walk.tile.rows - walk.tile.first));
}

/* Begin to bring an item; every item, and what would follow the last one, is a group of its own. */
template <int DIM>
static __device__ __forceinline__ void begin_item(const struct attend_cuda &call, const struct walk &walk, int item)
{
    if (item < walk.items) {
        const int64_t row = walk.tile.head * call.key_rows + attend_page_row(call, walk.first_tile + item / 2);
        const __nv_bfloat16 *from = (const __nv_bfloat16 *)(item % 2 ? call.v : call.k) + row * DIM;
        copy_rows<DIM, KEYS>(walk.slots + item % shape<DIM>::SLOTS * shape<DIM>::SLOT_BYTES, from, KEYS);
    }
    gpu_copy_commit();
}

/* Wait for an item; the slot of the one before it, which every warp is done with, takes the next to come. */
template <int DIM>
static __device__ __forceinline__ const unsigned char *take_item(const struct attend_cuda &call,
                                                                 const struct walk &walk, int item)
{
    gpu_copy_wait<shape<DIM>::SLOTS - 2>();
    __syncthreads();
    begin_item<DIM>(call, walk, item + shape<DIM>::SLOTS - 1);
    return walk.slots + item % shape<DIM>::SLOTS * shape<DIM>::SLOT_BYTES;
}

/* The warp's queries, 16 dimensions from 16 * step on, as an A operand. */
template <int DIM>
static __device__ __forceinline__ void load_queries(const unsigned char *queries, int step, uint32_t (&a)[4])
{
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane % 16;
    gpu_load_matrices(a, queries + shape<DIM>::place(row, 2 * step + lane / 16));
}

/* s [16 x 64] += a [16 x 16] by dimensions 16 * step .. of K */
template <int DIM>
static __device__ __forceinline__ void add_scores(float (&s)[KEY_BLOCKS][4], const uint32_t (&a)[4],
                                                  const unsigned char *keys, int step)
{
    const int lane = threadIdx.x % 32, row = lane / 16 * 8 + lane % 8;
    const unsigned char *at =
        keys + shape<DIM>::place_of_lane(row, 2 * step, shape<DIM>::lane_part(row, lane / 8 % 2));
#pragma unroll
    for (int j = 0; j < KEY_BLOCKS; j += 2) {
        uint32_t b[4];
        gpu_load_matrices(b, at + 16 * 8 * j * shape<DIM>::STRIDE);
        gpu_mma_bf16(s[j], a, {b[0], b[1]});
        gpu_mma_bf16(s[j + 1], a, {b[2], b[3]});
    }
}

template <int DIM>
static __device__ __forceinline__ void score(float (&s)[KEY_BLOCKS][4], const unsigned char *queries,
                                             const uint32_t (&kept)[shape<DIM>::STEPS][4],
                                             const unsigned char *keys)
{
#pragma unroll
    for (int j = 0; j < KEY_BLOCKS; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            s[j][i] = 0;
#pragma unroll
    for (int step = 0; step < shape<DIM>::STEPS; step++) {
        if constexpr (shape<DIM>::KEEPS_QUERIES) {
            add_scores<DIM>(s, kept[step], keys, step);
        } else {
            uint32_t a[4];
            load_queries<DIM>(queries, step, a);
            add_scores<DIM>(s, a, keys, step);
        }
    }
}

/* o [16 x DIM] += weights [16 x 64] V */
template <int DIM>
static __device__ __forceinline__ void add_values(float (&o)[DIM / 8][4], const float (&weights)[KEY_BLOCKS][4],
                                                  const unsigned char *values)
{
    const int lane = threadIdx.x % 32, row = lane % 16, part = shape<DIM>::lane_part(row, lane / 16);
#pragma unroll
    for (int step = 0; step < KEYS / 16; step++) {
        uint32_t a[4];
        attend_weights_of(weights, step, a);
#pragma unroll
        for (int j = 0; j < DIM / 8; j += 2) {
            uint32_t b[4];
            const unsigned char *at = values + shape<DIM>::place_of_lane(row, j, part);
            gpu_load_matrices_turned(b, at + 16 * 16 * step * shape<DIM>::STRIDE);
            gpu_mma_bf16(o[j], a, {b[0], b[1]});
            gpu_mma_bf16(o[j + 1], a, {b[2], b[3]});
        }
    }
}

/* What every thread does once its block knows what to walk. */
template <int DIM>
static __device__ __forceinline__ void attend_walk(const struct attend_cuda &call, const struct walk &walk)
{
    begin_queries<DIM>(call, walk);
    for (int item = 0; item < shape<DIM>::SLOTS - 1; item++)
        begin_item<DIM>(call, walk, item);
    struct attend_rows rows =
        attend_rows_load(call, walk.tile, (int)threadIdx.x / 32 * 16 + (int)threadIdx.x % 32 / 4);
    float o[DIM / 8][4], s[KEY_BLOCKS][4], factor[2];
    attend_values_load(call, rows, o);
    uint32_t kept[shape<DIM>::STEPS][4];
    for (int item = 0; item < walk.items; item += 2) {
        const int key = (walk.first_tile + item / 2) * KEYS;
        const bool sees = attend_sees_some(rows, key, KEYS);
        const unsigned char *keys = take_item<DIM>(call, walk, item);
        if (shape<DIM>::KEEPS_QUERIES && item == 0)
#pragma unroll
            for (int step = 0; step < shape<DIM>::STEPS; step++)
                load_queries<DIM>(walk.queries, step, kept[step]);
        if (sees) {
            score<DIM>(s, walk.queries, kept, keys);
            attend_edit(s, rows, key, call.bias);
            attend_weigh(s, rows, factor);
            attend_rescale(o, factor);
        }
        const unsigned char *values = take_item<DIM>(call, walk, item + 1);
        if (sees)
            add_values<DIM>(o, s, values);
    }
    attend_store(call, rows, o);
}

template <int DIM>
static __global__ void __launch_bounds__(THREADS, shape<DIM>::BLOCKS_PER_SM)
    attend_tiles(const struct attend_cuda call)
{
    GPU_SHARED(shared);
    struct walk walk;
    walk.tile = attend_tile_of(call, ROWS);
    walk.queries = shared;
    walk.slots = shared + shape<DIM>::QUERY_BYTES;
    int *found = (int *)(walk.slots + shape<DIM>::SLOTS * shape<DIM>::SLOT_BYTES);
    const struct attend_span seen = attend_seen(call, walk.tile, ROWS, found);
    if (seen.first >= seen.end)
        return;
    const struct attend_span share = attend_share((seen.end - 1) / KEYS + 1 - seen.first / KEYS);
    if (share.first == share.end)
        return;
    walk.first_tile = seen.first / KEYS + share.first;
    walk.items = 2 * (share.end - share.first);
    attend_walk<DIM>(call, walk);
}

template <int DIM>
static int launch(const struct attend_cuda *call, int parts, cudaStream_t stream, struct error *err)
{
    void (*const kernel)(const struct attend_cuda) = attend_tiles<DIM>;
    const int shared_bytes = shape<DIM>::SHARED_BYTES;
    if (gpu_check(
            cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
            "attention on the GPU", err) != 0)
        return -1;
    GPU_LAUNCH(kernel, dim3(attend_grid(call, ROWS), (unsigned)parts), THREADS, shared_bytes, stream, *call);
    return gpu_check_launch("attention on the GPU", err);
}

static bool supported(int capability, int dim)
{
    /* 160 KB of shared memory a block are not on the small cards of each generation */
    const bool large = capability == 80 || capability == 87 || (capability >= 90 && capability < 120);
    return capability >= 80 && (dim == 64 || dim == 80 || dim == 96 || dim == 128 || (dim == 256 && large));
}

static int attend(const struct attend_cuda *call, cudaStream_t stream, struct error *err)
{
    switch (call->dim) {
    case 64:
        return attend_split(call, ROWS, launch<64>, stream, err);
    case 80:
        return attend_split(call, ROWS, launch<80>, stream, err);
    case 96:
        return attend_split(call, ROWS, launch<96>, stream, err);
    case 128:
        return attend_split(call, ROWS, launch<128>, stream, err);
    case 256:
        return attend_split(call, ROWS, launch<256>, stream, err);
    default:
        return error_set(err, ERROR_INTERNAL, "no attention by mma.sync for heads of dimension %d", call->dim);
    }
}

extern "C" const struct attend_cuda_kernel attend_cuda_sm80 = {"cuda-sm80", supported, attend};
