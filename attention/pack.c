#include "attention/pack.h"

#include "attention/rows.h"

void pack_tile(const struct pack_rows *rows, void *tile)
{
    const int dim = rows->dim;
    const size_t row_bytes = (size_t)dim * dtype_size(rows->kernel->dtype);
    float cosines[ATTN_MAX_DIM / 2], sines[ATTN_MAX_DIM / 2];
    float keys[ATTN_KEY_TILE * ATTN_MAX_DIM];
    for (int i = 0; i < rows->n; i++) {
        float *key = keys + i * dim;
        key_to_f32(rows->kernel->dtype, (const char *)rows->keys + (size_t)i * row_bytes, rows->key_offset, key,
                   dim);
        if (i == 0 || rows->step != 0)
            rope_angles(rows->rope, rows->first_position + i * rows->step, cosines, sines);
        rope_rotate(rows->rope, cosines, sines, key, key, dim, 1.0f);
    }
    rows->kernel->pack(tile, keys, rows->values, rows->n, dim);
}
