/* Far records: the keys and values of FAR_BLOCK tokens of one kv head in four bits, for a memory that is read
 * rarely.
 *
 *     keys   k = low_c + step_c n, n = 0 .. 15: a scale for each channel over the block's tokens, since channels
 *            differ more than tokens do (KIVI: Liu et al. 2024, arXiv:2402.02750)
 *     values v = step_(t,g) n, n = -8 .. 7: a scale for each token and group of 32 channels
 *     layout key nibbles [32][dim/2] | value nibbles [32][dim/2] | low [dim] | key steps [dim] | value steps
 *            [32][dim/32 rounded up], the last three in bf16; byte e of a row holds elements e and e + dim/2
 *            | tokens of the representatives [8] in bytes
 *
 * Representatives are FAR_REPRESENTATIVES keys that are far from each other: the farthest from the block's mean,
 * and then, one by one, the farthest from all that were chosen (Gonzalez 1985, "Clustering to minimize the maximum
 * intercluster distance"). By them a first look at a block costs a quarter.
 *
 * With heads of 64, 38.125 bytes for each channel of a block, 0.298 of bf16's. A record holds no pointers and may
 * be sent as it is.
 */
#ifndef LONGHAUL_ATTENTION_FAR_RECORD_H
#define LONGHAUL_ATTENTION_FAR_RECORD_H

#include <stddef.h>
#include <stdint.h>

#include "base/num.h"

enum { FAR_BLOCK = 32, FAR_VALUE_GROUP = 32, FAR_REPRESENTATIVES = 8 };

/* dim: a multiple of 16. */
size_t far_record_bytes(int dim);

/* keys, values: [FAR_BLOCK][dim] of the dtype. */
void far_record_write(void *record, enum dtype dtype, int dim, const void *keys, const void *values);
void far_record_read(const void *record, enum dtype dtype, int dim, void *keys, void *values);

/* Where its parts lie. */
struct far_record_parts {
    uint8_t *keys, *values; /* [FAR_BLOCK][dim/2] nibbles */
    bf16 *low, *key_steps, *value_steps;
    uint8_t *representatives; /* [FAR_REPRESENTATIVES] */
};
struct far_record_parts far_record_parts(const void *record, int dim);

#endif
