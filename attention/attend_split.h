/* Few query rows against many keys: where there are fewer tiles of rows than the card has room for blocks, several
 * blocks share the keys of a tile, each with a state of its own, and the states are merged at the end. (Dao et al.
 * 2023, "Flash-Decoding".) */
#ifndef LONGHAUL_ATTENTION_ATTEND_SPLIT_H
#define LONGHAUL_ATTENTION_ATTEND_SPLIT_H

#include "attention/attend_cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Starts a kernel for that call with `parts` blocks for each tile, blockIdx.y = 0 .. parts - 1. Part p takes its
 * share of the tile's keys, and has its rows of o, m and l p times [kv_heads][tokens][group] further on. */
typedef int (*attend_launch)(const struct attend_cuda *call, int parts, cudaStream_t stream, struct error *err);

/* Launches a kernel whose tiles have tile_rows query rows, in as many parts as are good for it. */
int attend_split(const struct attend_cuda *call, int tile_rows, attend_launch launch, cudaStream_t stream,
                 struct error *err);

#ifdef __cplusplus
}
#endif

#endif
