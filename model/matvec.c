#include "model/matvec.h"

static const struct matvec_kernel *const kernels[] = {&matvec_kernel_avx512, &matvec_kernel_avx2, &matvec_kernel_c};
enum { N_KERNELS = sizeof kernels / sizeof kernels[0] };

const struct matvec_kernel *const *matvec_kernels(int *n_out)
{
    *n_out = N_KERNELS;
    return kernels;
}

static const struct matvec_kernel *best_kernel(void)
{
    int i = 0;
    while (!kernels[i]->supported())
        i++;
    return kernels[i];
}

static float dot_by_blocks(const struct matvec_kernel *kernel, enum tensor_type type, const uint8_t *row,
                           const float *x, int64_t n)
{
    const struct quant_layout *layout = quant_layout(type);
    int elements = tensor_block_elements(type);
    size_t bytes = tensor_block_bytes(type);
    struct quant_block block;
    float sum = 0;
    for (int64_t i = 0; i < n; i += elements, row += bytes) {
        layout->unpack(row, &block);
        sum += kernel->block_dot(&block, elements, layout->group, x + i);
    }
    return sum;
}

float matvec_row(const struct matvec_kernel *kernel, enum tensor_type type, const void *row, const float *x,
                 int64_t n)
{
    matvec_dot *dot = kernel->dot[type];
    return dot ? dot(row, x, n) : dot_by_blocks(kernel, type, row, x, n);
}

void matvec_rows(const struct tensor *w, const float *x, float *y, int64_t first_row, int64_t end_row)
{
    const struct matvec_kernel *kernel = best_kernel();
    int64_t n = w->dims[0];
    size_t bytes = tensor_row_bytes(w->type, n);
    const uint8_t *rows = w->data;
    for (int64_t row = first_row; row < end_row; row++)
        y[row] = matvec_row(kernel, w->type, rows + (size_t)row * bytes, x, n);
}
