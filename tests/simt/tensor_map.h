/* What simt keeps in a CUtensorMap: only what the program asks for, 3 dimensions of 16-bit numbers with the
 * 128-byte swizzle. */
#ifndef LONGHAUL_TESTS_SIMT_TENSOR_MAP_H
#define LONGHAUL_TESTS_SIMT_TENSOR_MAP_H

#include <cstdint>
#include <cstring>
#include <cuda.h>

namespace simt
{

struct tensor_map {
    const unsigned char *start;
    uint64_t sizes[3], strides[2]; /* in numbers; in bytes */
    uint32_t box[3];
};

static_assert(sizeof(tensor_map) <= sizeof(CUtensorMap), "a map holds what is kept in it");

static inline tensor_map tensor_map_of(const CUtensorMap *map)
{
    tensor_map kept;
    memcpy(&kept, map, sizeof kept);
    return kept;
}

} // namespace simt

#endif
