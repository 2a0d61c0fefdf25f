/* Block attention: the seam between what is attended to and how fast.
 *
 * A kernel takes a tile of query rows of one kv head and a run of packed keys, and carries the online softmax
 *     s = q.k,  m' = max(m, max s),  l' = l 2^(m-m') + sum 2^(s-m'),  o' = o 2^(m-m') + sum 2^(s-m') v
 * in fp32 across any number of calls: over the blocks of a long memory, over the hops of a ring. (Milakov and
 * Gimelshein 2018; Dao et al. 2022.) Scores are in base 2: the caller folds scale * log2(e) into q, and
 * attn_state_finish() turns the state into the output and a NATURAL log-sum-exp. Nothing else in the program
 * sees base 2. The CPU kernels keep m an even number, at least the largest score, so that rescaling is exact and
 * a row's answer is the same bits however its keys are shared out over calls, as long as each call's keys begin
 * and end at borders of tiles and come in rising order (attention/kernel_strip.h).
 *
 * Order of use: kernel = attn_kernel_choose(dtype, NULL); for each tile of keys kernel->pack(); fill q;
 * attn_state_reset(); attn_attend() as often as needed, over one or many packed runs; attn_state_finish().
 *
 * Packed keys. Keys are cut in tiles of ATTN_KEY_TILE; a packed run is an array of packed tiles, each
 * kernel->tile_bytes(dim) long and holding the rotated keys and the values of one kv head; the last tile of a
 * run may be short and is padded with zeros. A packed run holds no pointers: it can be sent to another rank
 * that uses the same kernel. Packed memory is aligned to ATTN_ALIGN bytes.
 *
 * Which keys a query row sees is a span of indices into the run. Keys outside add an exact zero (their
 * values must be finite), blocks outside the spans of all rows of a tile are not computed, and a row with an empty
 * span is left as it is. This is enough for causal, window and chunked attention; a rule that sees several
 * stretches of keys makes one call per stretch.
 *
 * Rules that keep keys by the attention they get ask attn_observe() for it once a tile's log-sum-exp is known: the
 * sums over rows of exp(s - lse), in whole numbers, so that they are the same in whatever order they are added up.
 */
#ifndef LONGHAUL_ATTENTION_KERNEL_H
#define LONGHAUL_ATTENTION_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/num.h"

enum {
    ATTN_KEY_TILE = 64,   /* keys in a packed tile; borders of blocks in the ring are multiples of it */
    ATTN_ALIGN = 64,      /* bytes */
    ATTN_MAX_DIM = 256,   /* head dimensions: a multiple of 16 up to this */
    ATTN_QUERY_ROWS = 192 /* at most so many rows in one attn_attend(); a good size for a work item */
};

#define ATTN_LOG2_E 1.44269504088896340736f

/* Keys first <= index < end of a run are seen; first >= end: none. Both rise with the row. */
struct attn_span {
    int64_t first, end;
};

/* The online softmax of `rows` query rows. o [rows][dim], m [rows] (base 2, not below the largest score),
 * l [rows]. Borrowed memory. */
struct attn_state {
    float *o, *m, *l;
};

struct attn_tile {
    const void *q;                 /* [rows][dim] in the kernel's dtype, rotated, times scale * log2(e) */
    const struct attn_span *spans; /* [rows] */
    int rows;                      /* 1 .. ATTN_QUERY_ROWS */
    int dim;
};

/* What keys get from the rows of a tile: row r adds to sums r % classes, so that the query heads of a kv head can
 * be told apart. Borrowed memory. */
struct attn_received {
    const float *lse; /* [rows], natural, over all that a row sees in any run; not read where the span is empty */
    int64_t *sums;    /* [classes][stride] by the key's index in the run, in units of ATTN_UNIT */
    int64_t stride;   /* covers the tiles that spans touch, whole */
    int classes;
};
#define ATTN_UNIT 0x1p-30

struct attn_kernel {
    const char *name; /* "avx512-bf16" */
    enum dtype dtype; /* of q, of the raw values and of the packed tiles */
    bool (*supported)(void);

    size_t (*tile_bytes)(int dim);

    /* Pack n <= ATTN_KEY_TILE keys: k [n][dim] f32, already rotated; v [n][dim] in the kernel's dtype. */
    void (*pack)(void *tile, const float *k, const void *v, int n, int dim);

    size_t (*scratch_bytes)(int dim);          /* of attn_attend() and attn_observe() */
    const struct strip_arithmetic *arithmetic; /* attention/kernel_strip.h; NULL: packs, and no more */
};

/* Carry the state over the keys of a packed run that the spans show. scratch: kernel->scratch_bytes(dim). */
void attn_attend(const struct attn_kernel *kernel, const struct attn_tile *tile, const void *packed,
                 const struct attn_state *state, void *scratch);

/* received->sums += exp(s - lse) of the keys that the spans show, each weight rounded down; other keys of the tiles
 * that are touched get an exact zero. The same scratch. */
void attn_observe(const struct attn_kernel *kernel, const struct attn_tile *tile, const void *packed,
                  const struct attn_received *received, void *scratch);

/* All kernels of this build, fastest first; n_out gets their number. A CPU that can run one can run all of the same
 * dtype behind it. */
const struct attn_kernel *const *attn_kernels(int *n_out);

/* The fastest kernel of that dtype that this CPU can run, or the one called `name` (NULL: choose, for
 * bf16 its dot products only where this CPU is fast at them). Kernels pack keys differently: ranks that send each
 * other packed keys need the same one.
 * NULL with ERROR_USAGE when the name is unknown or the CPU lacks it, ERROR_INTERNAL when there is none for dtype.
 */
const struct attn_kernel *attn_kernel_choose(enum dtype dtype, const char *name, struct error *err);

/* How keys are packed for a GPU: tile_bytes and dtype alone; NULL in a program that was built without CUDA. All
 * else is that of attention/attend_cuda.h. */
const struct attn_kernel *attn_kernel_cuda(void);

/* The name of the kernel of attention/attend_cuda.h that the card in use has for heads of that dimension,
 * "none" where it has none; NULL in a program that was built without CUDA. */
const char *attn_kernel_cuda_name(int dim);

/* Whether attention can be computed with so many query heads, kv heads and elements of a head; else ERROR_INPUT. */
int attn_check_heads(int heads, int kv_heads, int dim, struct error *err);

/* m = -inf, l = 0, o = 0 */
void attn_state_reset(const struct attn_state *state, int rows, int dim);

/* o := o / l and lse [rows] := natural log-sum-exp of the scaled scores. A row that saw no key: o = 0,
 * lse = -inf. lse may be NULL. */
void attn_state_finish(const struct attn_state *state, int rows, int dim, float *lse);

/* Merge two finished results of the same rows over different keys into the first:
 * lse = log(e^lse_a + e^lse_b), o = o_a e^(lse_a - lse) + o_b e^(lse_b - lse); empty rows (-inf) are neutral. */
void attn_merge(float *o_a, float *lse_a, const float *o_b, const float *lse_b, int64_t rows, int dim);

#endif
