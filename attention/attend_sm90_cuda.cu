/* Attention by wgmma and TMA, for sm_90a. (Shah et al. 2024, "FlashAttention-3".)
 *
 * A block has two or three warpgroups that compute, of 64 query rows each, and one that brings: one thread of it
 * asks for tiles of 64 or 128 keys and their values, each into the next slot of a ring for keys and one for values,
 * as soon as the slot is free. While a warpgroup weighs the scores of a tile, the product of the weights before it
 * with their values is under way; and the warpgroups begin their products in turn, so that one weighs while another
 * multiplies.
 *
 * What is the same for all threads of a warp is made so in the compiler's eyes (uniform): it then lies in the
 * registers of warps, where wgmma wants its descriptors, and costs the threads nothing.
 */
#include "attention/attend_split.h"
#include "attention/attend_tile.cuh"

#include <cudaTypedefs.h>

#include "base/gpu.h"
#include "base/gpu_sm90.cuh"

enum { GROUP_THREADS = 128, GROUP_ROWS = 64, BOX_ROWS = ATTEND_PAGE, BOX_COLUMNS = 64 };
enum { ROW_BYTES = 2 * BOX_COLUMNS, BOX_BYTES = BOX_ROWS * ROW_BYTES, PATTERN_BYTES = 8 * ROW_BYTES };
enum ring_of { OF_KEYS, OF_VALUES, RINGS };

/* What lies in shared memory, in panels of 64 columns, since a swizzled row has no more; the last one ends in zeros
 * where DIM does not fill it. */
template <int DIM> struct shape {
    static constexpr int KEYS = DIM > 128 ? 64 : 128, PAGES = KEYS / ATTEND_PAGE;
    static constexpr int GROUPS = DIM > 64 ? 2 : 3, SLOTS = DIM > 64 ? 2 : 4;
    static constexpr int ROWS = GROUPS * GROUP_ROWS, THREADS = (GROUPS + 1) * GROUP_THREADS;
    static constexpr int PANELS = (DIM + BOX_COLUMNS - 1) / BOX_COLUMNS, PANEL_BYTES = KEYS * ROW_BYTES;
    static constexpr int GROUP_BYTES = PANELS * BOX_BYTES, SLOT_BYTES = PANELS * PANEL_BYTES;
    static constexpr int QUERY_BYTES = GROUPS * GROUP_BYTES, TILE_BYTES = QUERY_BYTES + RINGS * SLOTS * SLOT_BYTES;
    static constexpr int BARRIERS = 1 + 2 * RINGS * SLOTS, FOUND = 2 * THREADS / 32;
    static constexpr int SHARED_BYTES = TILE_BYTES + BARRIERS * sizeof(uint64_t) + FOUND * sizeof(int);
    /* Together what 65536 registers are to THREADS threads at the launch. */
    static constexpr int COMPUTING_REGISTERS = DIM > 64 ? 240 : 160, BRINGING_REGISTERS = DIM > 64 ? 24 : 32;
};

struct maps {
    CUtensorMap q, k, v; /* [kv_heads][rows][dim], in boxes of 64 x 64 */
};

/* What a block walks, and where it keeps it. */
template <int DIM> struct walk {
    struct attend_tile part;
    int group; /* of this thread: the warpgroup */
    int first_page, last_page, tiles;
    unsigned char *shared;

    __device__ __forceinline__ unsigned char *queries(int of_group) const
    {
        return shared + of_group * shape<DIM>::GROUP_BYTES;
    }
    __device__ __forceinline__ unsigned char *slot(ring_of ring, int tile) const
    {
        return shared + shape<DIM>::QUERY_BYTES +
               (ring * shape<DIM>::SLOTS + tile % shape<DIM>::SLOTS) * shape<DIM>::SLOT_BYTES;
    }
    __device__ __forceinline__ uint64_t *queries_there() const
    {
        return (uint64_t *)(shared + shape<DIM>::TILE_BYTES);
    }
    __device__ __forceinline__ uint64_t *there(ring_of ring, int tile) const
    {
        return queries_there() + 1 + ring * shape<DIM>::SLOTS + tile % shape<DIM>::SLOTS;
    }
    __device__ __forceinline__ uint64_t *unused(ring_of ring, int tile) const
    {
        return there(ring, tile) + RINGS * shape<DIM>::SLOTS;
    }
    __device__ __forceinline__ int *found() const
    {
        return (int *)(queries_there() + shape<DIM>::BARRIERS);
    }
    /* Slots are used over and over; which time of two. */
    static __device__ __forceinline__ unsigned parity(int tile)
    {
        return (unsigned)tile / shape<DIM>::SLOTS % 2;
    }
};

static __device__ __forceinline__ int uniform(int x)
{
    return __shfl_sync(~0u, x, 0);
}

template <int DIM> static __device__ __forceinline__ void make_barriers(const walk<DIM> &walk)
{
    gpu_barrier_init(walk.queries_there(), 1);
    for (int slot = 0; slot < shape<DIM>::SLOTS; slot++)
        for (int ring = 0; ring < RINGS; ring++) {
            gpu_barrier_init(walk.there((ring_of)ring, slot), 1);
            gpu_barrier_init(walk.unused((ring_of)ring, slot), shape<DIM>::GROUPS * 4); /* its warps */
        }
    gpu_barriers_publish();
}

/* ---- bringing: one thread ---- */

template <int DIM>
static __device__ __forceinline__ void bring_queries(const struct maps &maps, const walk<DIM> &walk)
{
    gpu_barrier_expect(walk.queries_there(), shape<DIM>::QUERY_BYTES);
    for (int group = 0; group < shape<DIM>::GROUPS; group++)
        for (int panel = 0; panel < shape<DIM>::PANELS; panel++)
            gpu_copy_box(walk.queries(group) + panel * BOX_BYTES, &maps.q,
                         int3{panel * BOX_COLUMNS, (int)walk.part.first + group * GROUP_ROWS, walk.part.head},
                         walk.queries_there());
}

/* A tile of keys or values into its slot. Beyond the last page that page comes again: nobody looks at it there, but
 * what it holds are numbers. */
template <int DIM>
static __device__ __forceinline__ void bring(const struct attend_cuda &call, const CUtensorMap *map,
                                             const walk<DIM> &walk, ring_of ring, int tile)
{
    uint64_t *const there = walk.there(ring, tile);
    gpu_barrier_wait(walk.unused(ring, tile), walk.parity(tile) ^ 1);
    gpu_barrier_expect(there, shape<DIM>::SLOT_BYTES);
    for (int i = 0; i < shape<DIM>::PAGES; i++) {
        const int page = min(walk.first_page + shape<DIM>::PAGES * tile + i, walk.last_page);
        const int row = (int)attend_page_row(call, page);
        for (int panel = 0; panel < shape<DIM>::PANELS; panel++)
            gpu_copy_box(walk.slot(ring, tile) + panel * shape<DIM>::PANEL_BYTES + i * BOX_BYTES, map,
                         int3{panel * BOX_COLUMNS, row, walk.part.head}, there);
    }
}

/* In the order in which the others take it. */
template <int DIM>
static __device__ __forceinline__ void bring_all(const struct attend_cuda &call, const struct maps &maps,
                                                 const walk<DIM> &walk)
{
    bring_queries(maps, walk);
    for (int tile = 0; tile <= walk.tiles; tile++) {
        if (tile < walk.tiles)
            bring(call, &maps.k, walk, OF_KEYS, tile);
        if (tile > 0)
            bring(call, &maps.v, walk, OF_VALUES, tile - 1);
    }
}

/* ---- computing: warpgroups ---- */

template <int DIM> static __device__ __forceinline__ void free_slot(const walk<DIM> &walk, ring_of ring, int tile)
{
    __syncwarp();
    if (threadIdx.x % 32 == 0)
        gpu_barrier_arrive(walk.unused(ring, tile));
}

/* Called between weighing scores and waiting for the product with values: ptxas moves that wait up past all
 * arithmetic, and nothing would overlap, but not past a branch, which this is. */
template <int DIM> static __device__ __forceinline__ void await_keys(const walk<DIM> &walk, int tile)
{
    if (tile < walk.tiles)
        gpu_barrier_wait(walk.there(OF_KEYS, tile), walk.parity(tile));
}

/* Begin s [64 x KEYS] = queries of the warpgroup times keys. */
template <int DIM, int BLOCKS>
static __device__ __forceinline__ void begin_scores(float (&s)[BLOCKS][4], const walk<DIM> &walk, int tile)
{
    const uint64_t queries = gpu_matrix(walk.queries(walk.group), 16, PATTERN_BYTES);
    const uint64_t keys = gpu_matrix(walk.slot(OF_KEYS, tile), 16, PATTERN_BYTES);
    gpu_wgmma_settle(s);
    gpu_wgmma_fence();
#pragma unroll
    for (int d = 0; d < DIM; d += 16) {
        const int panel = d / BOX_COLUMNS, column_bytes = d % BOX_COLUMNS * 2;
        gpu_wgmma(s, gpu_matrix_after(queries, panel * BOX_BYTES + column_bytes),
                  gpu_matrix_after(keys, panel * shape<DIM>::PANEL_BYTES + column_bytes), d > 0);
    }
    gpu_wgmma_commit();
}

/* Begin o [64 x DIM] += weights [64 x KEYS] times values. */
template <int DIM, int STEPS>
static __device__ __forceinline__ void begin_values(float (&o)[DIM / 8][4], uint32_t (&weights)[STEPS][4],
                                                    const walk<DIM> &walk, int tile)
{
    const uint64_t values = gpu_matrix(walk.slot(OF_VALUES, tile), shape<DIM>::PANEL_BYTES, PATTERN_BYTES);
    gpu_wgmma_settle(o);
    gpu_wgmma_settle(weights);
    gpu_wgmma_fence();
#pragma unroll
    for (int step = 0; step < STEPS; step++)
        gpu_wgmma_turned(o, weights[step], gpu_matrix_after(values, step * 16 * ROW_BYTES));
    gpu_wgmma_commit();
}

template <int STEPS, int BLOCKS>
static __device__ __forceinline__ void round_weights(uint32_t (&weights)[STEPS][4], const float (&s)[BLOCKS][4])
{
#pragma unroll
    for (int step = 0; step < STEPS; step++)
        attend_weights_of(s, step, weights[step]);
}

/* The warpgroups' turns to begin products: barrier 1 + group is waited for by a group and passed on by the one
 * before it. */
template <int DIM> static __device__ __forceinline__ void take_turn(const walk<DIM> &walk)
{
    gpu_group_wait(1 + walk.group, 2 * GROUP_THREADS);
}

template <int DIM> static __device__ __forceinline__ void pass_turn(const walk<DIM> &walk)
{
    gpu_group_arrive(1 + (walk.group + 1) % shape<DIM>::GROUPS, 2 * GROUP_THREADS);
}

/* Tile 0: the scores alone. */
template <int DIM, int BLOCKS>
static __device__ __forceinline__ void weigh_first(const struct attend_cuda &call, const walk<DIM> &walk,
                                                   struct attend_rows &rows, float (&s)[BLOCKS][4],
                                                   float (&factor)[2])
{
    gpu_barrier_wait(walk.queries_there(), 0);
    await_keys(walk, 0);
    begin_scores(s, walk, 0);
    gpu_wgmma_wait<0>();
    gpu_wgmma_settle(s);
    free_slot(walk, OF_KEYS, 0);
    attend_edit(s, rows, walk.first_page * ATTEND_PAGE, call.bias);
    attend_weigh(s, rows, factor);
    await_keys(walk, 1);
}

template <int DIM>
static __device__ __forceinline__ void compute(const struct attend_cuda &call, const walk<DIM> &walk)
{
    constexpr int KEYS = shape<DIM>::KEYS;
    const bool last_group = walk.group == shape<DIM>::GROUPS - 1;
    struct attend_rows rows =
        attend_rows_load(call, walk.part, (int)threadIdx.x / 32 * 16 + (int)threadIdx.x % 32 / 4);
    float o[DIM / 8][4], s[KEYS / 8][4], factor[2];
    uint32_t weights[KEYS / 16][4];
    attend_values_load(call, rows, o);
    weigh_first(call, walk, rows, s, factor);
    attend_rescale(o, factor);
    round_weights(weights, s);
    if (last_group && walk.tiles > 1)
        pass_turn(walk);
    for (int tile = 1; tile < walk.tiles; tile++) {
        take_turn(walk);
        begin_scores(s, walk, tile);
        gpu_barrier_wait(walk.there(OF_VALUES, tile - 1), walk.parity(tile - 1));
        begin_values(o, weights, walk, tile - 1);
        if (!last_group || tile + 1 < walk.tiles)
            pass_turn(walk);
        gpu_wgmma_wait<1>();
        gpu_wgmma_settle(s);
        free_slot(walk, OF_KEYS, tile);
        attend_edit(s, rows, walk.first_page * ATTEND_PAGE + KEYS * tile, call.bias);
        attend_weigh(s, rows, factor);
        gpu_wgmma_settle(s);
        await_keys(walk, tile + 1);
        gpu_wgmma_wait<0>();
        gpu_wgmma_settle(o);
        free_slot(walk, OF_VALUES, tile - 1);
        attend_rescale(o, factor);
        round_weights(weights, s);
    }
    gpu_barrier_wait(walk.there(OF_VALUES, walk.tiles - 1), walk.parity(walk.tiles - 1));
    begin_values(o, weights, walk, walk.tiles - 1);
    gpu_wgmma_wait<0>();
    gpu_wgmma_settle(o);
    attend_store(call, rows, o);
}

template <int DIM>
static __global__ void __launch_bounds__(shape<DIM>::THREADS, 1)
    attend_tiles(const struct attend_cuda call, const __grid_constant__ struct maps maps)
{
    GPU_SHARED(shared);
    walk<DIM> walk;
    walk.part = attend_tile_of(call, shape<DIM>::ROWS);
    walk.shared = shared;
    walk.group = uniform((int)threadIdx.x / GROUP_THREADS);
    if (threadIdx.x == 0)
        make_barriers(walk);
    const struct attend_span seen = attend_seen(call, walk.part, shape<DIM>::ROWS, walk.found());
    if (seen.first >= seen.end)
        return;
    const int page = seen.first / ATTEND_PAGE, last_page = (seen.end - 1) / ATTEND_PAGE;
    const struct attend_span share = attend_share((last_page - page) / shape<DIM>::PAGES + 1);
    if (share.first == share.end)
        return;
    walk.last_page = uniform(last_page);
    walk.first_page = uniform(page + shape<DIM>::PAGES * share.first);
    walk.tiles = uniform(share.end - share.first);
    if (walk.group == shape<DIM>::GROUPS) {
        gpu_registers_shrink<shape<DIM>::BRINGING_REGISTERS>();
        if (threadIdx.x % GROUP_THREADS == 0)
            bring_all(call, maps, walk);
    } else {
        gpu_registers_grow<shape<DIM>::COMPUTING_REGISTERS>();
        compute(call, walk);
    }
}

/* ---- the host's side ---- */

/* The driver's function, found without linking the driver; NULL where it has none. */
static PFN_cuTensorMapEncodeTiled_v12000 find_encoder()
{
    void *function = NULL;
    enum cudaDriverEntryPointQueryResult found;
    const cudaError_t code =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
    return code == cudaSuccess && found == cudaDriverEntryPointSuccess ? (PFN_cuTensorMapEncodeTiled_v12000)function
                                                                       : NULL;
}

/* [kv_heads][rows][dim] bf16 in boxes of one panel */
static int describe(CUtensorMap *map, const void *numbers, const struct attend_cuda *call, int64_t rows,
                    struct error *err)
{
    static const PFN_cuTensorMapEncodeTiled_v12000 encode = find_encoder();
    const cuuint64_t row_bytes = 2 * (cuuint64_t)call->dim;
    const cuuint64_t sizes[] = {(cuuint64_t)call->dim, (cuuint64_t)rows, (cuuint64_t)call->kv_heads};
    const cuuint64_t strides[] = {row_bytes, row_bytes * (cuuint64_t)rows};
    const cuuint32_t box[] = {BOX_COLUMNS, BOX_ROWS, 1}, steps[] = {1, 1, 1};
    if (!encode)
        return error_set(err, ERROR_CLUSTER, "the GPU's driver has no cuTensorMapEncodeTiled");
    const CUresult code = encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, (void *)numbers, sizes, strides, box,
                                 steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return code == CUDA_SUCCESS ? 0
                                : error_set(err, ERROR_INTERNAL,
                                            "the GPU's driver refuses a map of %lld rows of %d numbers (code %d)",
                                            (long long)rows, call->dim, (int)code);
}

template <int DIM>
static int launch(const struct attend_cuda *call, int parts, cudaStream_t stream, struct error *err)
{
    void (*const kernel)(const struct attend_cuda, const struct maps) = attend_tiles<DIM>;
    const int shared_bytes = shape<DIM>::SHARED_BYTES;
    struct maps maps;
    if (describe(&maps.q, call->q, call, call->tokens * call->group, err) != 0 ||
        describe(&maps.k, call->k, call, call->key_rows, err) != 0 ||
        describe(&maps.v, call->v, call, call->key_rows, err) != 0 ||
        gpu_check(
            cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
            "attention on the GPU", err) != 0)
        return -1;
    const dim3 grid(attend_grid(call, shape<DIM>::ROWS), (unsigned)parts);
    GPU_LAUNCH(kernel, grid, shape<DIM>::THREADS, shared_bytes, stream, *call, maps);
    return gpu_check_launch("attention on the GPU", err);
}

static bool supported(int capability, int dim)
{
    return capability == 90 && (dim == 64 || dim == 80 || dim == 96 || dim == 128 || dim == 256);
}

template <int DIM> static int attend_of(const struct attend_cuda *call, cudaStream_t stream, struct error *err)
{
    return attend_split(call, shape<DIM>::ROWS, launch<DIM>, stream, err);
}

static int attend(const struct attend_cuda *call, cudaStream_t stream, struct error *err)
{
    switch (call->dim) {
    case 64:
        return attend_of<64>(call, stream, err);
    case 80:
        return attend_of<80>(call, stream, err);
    case 96:
        return attend_of<96>(call, stream, err);
    case 128:
        return attend_of<128>(call, stream, err);
    default:
        return attend_of<256>(call, stream, err);
    }
}

extern "C" const struct attend_cuda_kernel attend_cuda_sm90 = {"cuda-sm90", supported, attend};
