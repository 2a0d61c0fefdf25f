#include "model/linear.h"

#include <stdlib.h>
#include <string.h>

#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_debug.h>

#include "model/unpack.h"

/* oneDNN's threads are GNU OpenMP's; its header is not part of every compiler, so the one call is declared here. */
extern void omp_set_num_threads(int threads);

enum {
    KERNELS = 3,
    PANEL_ROWS = 192 /* rows unpacked at a time: a multiple of every block size of oneDNN's layouts */
};

/* Largest first. Each size sums a row in the same order, which does not hold for every size on every CPU. */
static const int kernel_rows[KERNELS] = {LINEAR_TILE_ROWS, 64, LINEAR_LEAST_ROWS};

/* The product for a fixed number of rows. */
struct kernel {
    dnnl_primitive_t primitive;
    dnnl_memory_desc_t x, y, scratchpad;
};

struct linear {
    struct linear_shape shape;
    char *packed;
    dnnl_engine_t engine;
    dnnl_memory_desc_t weights_layout;
    dnnl_memory_t weights, bias;
    struct kernel kernels[KERNELS];
    size_t scratchpad_bytes;
};

static int dnnl_check(dnnl_status_t status, const char *what, struct error *err)
{
    if (status == dnnl_success)
        return 0;
    enum error_code code = status == dnnl_out_of_memory ? ERROR_RESOURCE : ERROR_INTERNAL;
    return error_set(err, code, "linear layer: %s: oneDNN says %s", what, dnnl_status2str(status));
}

static dnnl_data_type_t data_type(enum dtype dtype)
{
    return dtype == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32;
}

static size_t align_up(size_t bytes)
{
    return (bytes + LINEAR_ALIGN - 1) / LINEAR_ALIGN * LINEAR_ALIGN;
}

/* Descriptor of a dense row-major [rows][columns]. */
static int matrix_desc(dnnl_memory_desc_t *out, int64_t rows, int64_t columns, dnnl_data_type_t type,
                       struct error *err)
{
    const dnnl_dims_t dims = {rows, columns};
    return dnnl_check(dnnl_memory_desc_init_by_tag(out, 2, dims, type, dnnl_ab), "descriptor of a matrix", err);
}

static int product_desc_create(const struct linear *linear, const struct kernel *kernel, dnnl_primitive_desc_t *out,
                               struct error *err)
{
    const struct linear_shape *shape = &linear->shape;
    dnnl_memory_desc_t bias;
    dnnl_matmul_desc_t product;
    dnnl_primitive_attr_t attributes = NULL;
    if (matrix_desc(&bias, 1, shape->n_out, dnnl_f32, err) != 0 ||
        dnnl_check(dnnl_matmul_desc_init(&product, &kernel->x, &linear->weights_layout, shape->bias ? &bias : NULL,
                                         &kernel->y),
                   "descriptor of a product", err) != 0 ||
        dnnl_check(dnnl_primitive_attr_create(&attributes), "attributes of a product", err) != 0)
        return -1;
    dnnl_status_t status = dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user);
    if (status == dnnl_success)
        status = dnnl_primitive_desc_create(out, &product, attributes, linear->engine, NULL);
    dnnl_primitive_attr_destroy(attributes);
    if (status == dnnl_unimplemented)
        return error_set(err, ERROR_USAGE, "linear layer: this CPU has no matrix product of type %s",
                         dtype_name(shape->dtype));
    return dnnl_check(status, "choice of a product", err);
}

/* The kernel for `rows` rows, and the layout of the weights that it takes, where that is still open. */
static int kernel_create(struct linear *linear, int64_t rows, struct kernel *kernel, struct error *err)
{
    const struct linear_shape *shape = &linear->shape;
    dnnl_primitive_desc_t desc = NULL;
    if (matrix_desc(&kernel->x, rows, shape->n_in, data_type(shape->dtype), err) != 0 ||
        matrix_desc(&kernel->y, rows, shape->n_out, dnnl_f32, err) != 0 ||
        product_desc_create(linear, kernel, &desc, err) != 0)
        return -1;
    linear->weights_layout = *dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0);
    kernel->scratchpad = *dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
    size_t bytes = dnnl_memory_desc_get_size(&kernel->scratchpad);
    if (bytes > linear->scratchpad_bytes)
        linear->scratchpad_bytes = bytes;
    int status = dnnl_check(dnnl_primitive_create(&kernel->primitive, desc), "making a product", err);
    dnnl_primitive_desc_destroy(desc);
    return status;
}

/* The layout of the weights as the largest product wants it. Where that is plain rows [n_in][n_out] whose stride is
 * a multiple of a KiB, 16 columns are left free behind each: else the rows of a column lie in the same few sets of
 * the cache, and a product is half as fast. */
static int layout_choose(struct linear *linear, struct error *err)
{
    const struct linear_shape *shape = &linear->shape;
    const dnnl_dims_t dims = {shape->n_in, shape->n_out}, apart = {shape->n_out + 16, 1};
    const dnnl_data_type_t type = data_type(shape->dtype);
    struct kernel first = {0};
    if (dnnl_check(dnnl_memory_desc_init_by_tag(&linear->weights_layout, 2, dims, type, dnnl_format_tag_any),
                   "descriptor of the weights", err) != 0 ||
        kernel_create(linear, kernel_rows[0], &first, err) != 0)
        return -1;
    dnnl_primitive_destroy(first.primitive);
    const dnnl_blocking_desc_t *chosen = &linear->weights_layout.format_desc.blocking;
    if (chosen->inner_nblks > 0 || chosen->strides[1] != 1 ||
        (size_t)chosen->strides[0] * dtype_size(shape->dtype) % 1024 != 0)
        return 0;
    return dnnl_check(dnnl_memory_desc_init_by_strides(&linear->weights_layout, 2, dims, type, apart),
                      "descriptor of the weights", err);
}

static int kernels_create(struct linear *linear, struct error *err)
{
    if (dnnl_check(dnnl_engine_create(&linear->engine, dnnl_cpu, 0), "finding the CPU", err) != 0 ||
        layout_choose(linear, err) != 0)
        return -1;
    for (int i = 0; i < KERNELS; i++)
        if (kernel_create(linear, kernel_rows[i], &linear->kernels[i], err) != 0)
            return -1;
    return 0;
}

static int wrap_weights(struct linear *linear, struct error *err)
{
    if (dnnl_check(dnnl_memory_create(&linear->weights, &linear->weights_layout, linear->engine, linear->packed),
                   "wrapping the weights", err) != 0)
        return -1;
    dnnl_memory_desc_t bias;
    if (!linear->shape.bias)
        return 0;
    if (matrix_desc(&bias, 1, linear->shape.n_out, dnnl_f32, err) != 0)
        return -1;
    return dnnl_check(
        dnnl_memory_create(&linear->bias, &bias, linear->engine, (void *)(uintptr_t)linear->shape.bias),
        "wrapping the bias", err);
}

struct linear *linear_attach(const struct linear_shape *shape, void *packed, struct error *err)
{
    struct linear *linear = calloc(1, sizeof *linear);
    if (!linear) {
        error_set(err, ERROR_RESOURCE, "no memory for a linear layer");
        return NULL;
    }
    /* a kernel is made for the number of threads that its maker has */
    omp_set_num_threads(1);
    linear->shape = *shape;
    linear->packed = packed;
    if (kernels_create(linear, err) != 0 || wrap_weights(linear, err) != 0) {
        linear_free(linear);
        return NULL;
    }
    return linear;
}

void linear_free(struct linear *linear)
{
    if (!linear)
        return;
    for (int i = 0; i < KERNELS; i++)
        dnnl_primitive_destroy(linear->kernels[i].primitive);
    dnnl_memory_destroy(linear->weights);
    dnnl_memory_destroy(linear->bias);
    dnnl_engine_destroy(linear->engine);
    free(linear);
}

int linear_packed_bytes(const struct linear_shape *shape, size_t *out, struct error *err)
{
    struct linear *linear = linear_attach(shape, NULL, err);
    if (!linear)
        return -1;
    *out = align_up(dnnl_memory_desc_get_size(&linear->weights_layout));
    linear_free(linear);
    return 0;
}

/* ---- packing ---- */

static dnnl_status_t reorder_run(dnnl_engine_t engine, const dnnl_memory_desc_t layouts[2], void *const places[2])
{
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_memory_t from = NULL, to = NULL;
    dnnl_stream_t stream = NULL;
    dnnl_status_t status =
        dnnl_reorder_primitive_desc_create(&desc, &layouts[0], engine, &layouts[1], engine, NULL);
    if (status == dnnl_success)
        status = dnnl_primitive_create(&reorder, desc);
    if (status == dnnl_success)
        status = dnnl_memory_create(&from, &layouts[0], engine, places[0]);
    if (status == dnnl_success)
        status = dnnl_memory_create(&to, &layouts[1], engine, places[1]);
    if (status == dnnl_success)
        status = dnnl_stream_create(&stream, engine, dnnl_stream_default_flags);
    if (status == dnnl_success) {
        const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
        status = dnnl_primitive_execute(reorder, stream, 2, arguments);
    }
    dnnl_stream_destroy(stream);
    dnnl_memory_destroy(to);
    dnnl_memory_destroy(from);
    dnnl_primitive_destroy(reorder);
    dnnl_primitive_desc_destroy(desc);
    return status;
}

/* Reorder panel [rows][n_in] f32 into the packed matrix, as its rows from `first` on. */
static int panel_store(const struct linear *linear, float *panel, int64_t first, int64_t rows, struct error *err)
{
    const dnnl_dims_t dims = {linear->shape.n_in, rows}, offset = {0, first}, strides = {1, linear->shape.n_in};
    dnnl_memory_desc_t layouts[2]; /* of the panel, and of its place */
    dnnl_status_t status = dnnl_memory_desc_init_by_strides(&layouts[0], 2, dims, dnnl_f32, strides);
    if (status == dnnl_success)
        status = dnnl_memory_desc_init_submemory(&layouts[1], &linear->weights_layout, dims, offset);
    if (status == dnnl_success) {
        /* With the offset in the pointer, all panels of a size have one descriptor, and so one compiled reorder. */
        size_t skip = (size_t)layouts[1].offset0 * dtype_size(linear->shape.dtype);
        layouts[1].offset0 = 0;
        status = reorder_run(linear->engine, layouts, (void *const[2]){panel, linear->packed + skip});
    }
    return dnnl_check(status, "reordering weights", err);
}

int linear_pack(const struct linear *linear, const struct tensor *const *parts, int n_parts, struct error *err)
{
    const struct linear_shape *shape = &linear->shape;
    const struct unpack_shape rows_shape = {shape->n_in, shape->n_out, shape->dtype};
    struct unpack source;
    if (unpack_begin(&source, &rows_shape, parts, n_parts, err) != 0)
        return -1;
    omp_set_num_threads(1);
    const int64_t most = i64_min(PANEL_ROWS, shape->n_out);
    float *panel = malloc((size_t)most * (size_t)shape->n_in * sizeof *panel);
    if (!panel)
        return error_set(err, ERROR_RESOURCE, "no memory to pack tensor %s", parts[0]->name);
    int status = 0;
    for (int64_t first = 0; status == 0 && first < shape->n_out; first += most) {
        int64_t rows = i64_min(most, shape->n_out - first);
        status = unpack_rows(&source, rows, panel, err);
        if (status == 0)
            status = panel_store(linear, panel, first, rows, err);
    }
    free(panel);
    return status;
}

/* ---- applying ---- */

/* Scratch: oneDNN's scratchpad, then LINEAR_LEAST_ROWS rows of x, then of y. */
static size_t padded_x_bytes(const struct linear_shape *shape)
{
    return align_up(LINEAR_LEAST_ROWS * (size_t)shape->n_in * dtype_size(shape->dtype));
}

size_t linear_scratch_bytes(const struct linear *linear)
{
    return align_up(linear->scratchpad_bytes) + padded_x_bytes(&linear->shape) +
           align_up(LINEAR_LEAST_ROWS * (size_t)linear->shape.n_out * sizeof(float));
}

/* What the products of one linear_apply have in common. */
struct application {
    const struct linear *linear;
    dnnl_stream_t stream;
    char *scratch;
};

static dnnl_status_t kernel_run(const struct application *a, const struct kernel *kernel, const void *x, float *y)
{
    const struct linear *linear = a->linear;
    dnnl_memory_t x_memory = NULL, y_memory = NULL, scratchpad = NULL;
    dnnl_status_t status = dnnl_memory_create(&x_memory, &kernel->x, linear->engine, (void *)(uintptr_t)x);
    if (status == dnnl_success)
        status = dnnl_memory_create(&y_memory, &kernel->y, linear->engine, y);
    if (status == dnnl_success)
        status = dnnl_memory_create(&scratchpad, &kernel->scratchpad, linear->engine, a->scratch);
    if (status == dnnl_success) {
        const dnnl_exec_arg_t arguments[] = {
            {DNNL_ARG_SRC, x_memory},          {DNNL_ARG_WEIGHTS, linear->weights}, {DNNL_ARG_DST, y_memory},
            {DNNL_ARG_SCRATCHPAD, scratchpad}, {DNNL_ARG_BIAS, linear->bias},
        };
        status = dnnl_primitive_execute(kernel->primitive, a->stream, linear->bias ? 5 : 4, arguments);
    }
    dnnl_memory_destroy(scratchpad);
    dnnl_memory_destroy(y_memory);
    dnnl_memory_destroy(x_memory);
    return status;
}

/* Fewer rows than the smallest kernel takes: through scratch, with zeros behind them. */
static dnnl_status_t run_padded(const struct application *a, const struct linear_rows *rest)
{
    const struct linear_shape *shape = &a->linear->shape;
    const size_t x_row = (size_t)shape->n_in * dtype_size(shape->dtype), rows = (size_t)rest->rows;
    char *x = a->scratch + align_up(a->linear->scratchpad_bytes);
    float *y = (float *)(void *)(x + padded_x_bytes(shape));
    memcpy(x, rest->x, rows * x_row);
    memset(x + rows * x_row, 0, (LINEAR_LEAST_ROWS - rows) * x_row);
    dnnl_status_t status = kernel_run(a, &a->linear->kernels[KERNELS - 1], x, y);
    if (status == dnnl_success)
        memcpy(rest->y, y, rows * (size_t)shape->n_out * sizeof *y);
    return status;
}

static dnnl_status_t run_rows(const struct application *a, struct linear_rows rest)
{
    const struct linear_shape *shape = &a->linear->shape;
    const size_t x_row = (size_t)shape->n_in * dtype_size(shape->dtype);
    for (int i = 0; i < KERNELS; i++)
        while (rest.rows >= kernel_rows[i]) {
            dnnl_status_t status = kernel_run(a, &a->linear->kernels[i], rest.x, rest.y);
            if (status != dnnl_success)
                return status;
            rest.x = (const char *)rest.x + (size_t)kernel_rows[i] * x_row;
            rest.y += kernel_rows[i] * shape->n_out;
            rest.rows -= kernel_rows[i];
        }
    return rest.rows > 0 ? run_padded(a, &rest) : dnnl_success;
}

int linear_apply(const struct linear *linear, const struct linear_rows *rows, void *scratch, struct error *err)
{
    omp_set_num_threads(1);
    struct application application = {.linear = linear, .scratch = scratch};
    dnnl_status_t status = dnnl_stream_create(&application.stream, linear->engine, dnnl_stream_default_flags);
    if (status != dnnl_success)
        return dnnl_check(status, "making a stream", err);
    status = run_rows(&application, *rows);
    dnnl_stream_destroy(application.stream);
    return dnnl_check(status, "product", err);
}
