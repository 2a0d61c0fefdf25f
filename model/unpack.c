#include "model/unpack.h"

#include <string.h>

int unpack_begin(struct unpack *unpack, const struct unpack_shape *shape, const struct tensor *const *parts,
                 int n_parts, struct error *err)
{
    int64_t rows = 0;
    for (int i = 0; i < n_parts; i++) {
        if (parts[i]->dims[0] != shape->n_in)
            return error_set(err, ERROR_INPUT, "tensor %s has rows of %lld, not %lld", parts[i]->name,
                             (long long)parts[i]->dims[0], (long long)shape->n_in);
        rows += tensor_rows(parts[i]);
    }
    if (rows != shape->n_out)
        return error_set(err, ERROR_INPUT, "tensor %s and those stacked on it have %lld rows, not %lld",
                         parts[0]->name, (long long)rows, (long long)shape->n_out);
    *unpack = (struct unpack){.shape = *shape, .part = parts, .row = 0};
    return 0;
}

/* True when every x is finite, and still so when rounded to dtype. */
static bool all_finite(const float *x, int64_t n, enum dtype dtype)
{
    /* the largest magnitudes that do not round to infinity, as bits */
    const uint32_t limit = dtype == DTYPE_BF16 ? 0x7f7f7fffU : 0x7f7fffffU;
    uint32_t largest = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7fffffffU;
        largest = bits > largest ? bits : largest;
    }
    return largest <= limit;
}

int unpack_rows(struct unpack *unpack, int64_t rows, float *out, struct error *err)
{
    const struct unpack_shape *shape = &unpack->shape;
    for (int64_t i = 0; i < rows; i++, unpack->row++) {
        if (unpack->row == tensor_rows(*unpack->part))
            unpack->part++, unpack->row = 0;
        const struct tensor *tensor = *unpack->part;
        const size_t row_bytes = tensor_row_bytes(tensor->type, shape->n_in);
        tensor_row_to_f32(tensor->type, (const char *)tensor->data + (size_t)unpack->row * row_bytes, out,
                          shape->n_in);
        if (!all_finite(out, shape->n_in, shape->dtype))
            return error_set(err, ERROR_INPUT,
                             "tensor %s: row %lld of %lld holds a weight that is not finite in %s", tensor->name,
                             (long long)unpack->row, (long long)tensor_rows(tensor), dtype_name(shape->dtype));
        out += shape->n_in;
    }
    return 0;
}
