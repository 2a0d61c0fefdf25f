#include "model/linear_cuda.h"

#include <cublasLt.h>
#include <stdlib.h>

#include "base/gpu.h"
#include "model/ops.h"
#include "model/unpack.h"

enum {
    PLANS = 64,      /* shapes whose product is remembered: a model has 5 matrices, a run few numbers of rows */
    PANEL_ROWS = 256 /* rows unpacked at a time */
};
static const size_t WORKSPACE_BYTES = (size_t)32 << 20; /* what NVIDIA advises for sm_90 */

/* A product of a shape: cuBLASLt counts matrices by columns, so that W is n_in x n_out and transposed, x is
 * n_in x rows, and y is n_out x rows. The bias is one number a row of y as cuBLASLt sees it. */
struct plan {
    int64_t n_in, n_out, rows;
    bool with_bias;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t weights, x, y;
    cublasLtMatmulAlgo_t algorithm;
};

struct linear_cuda_library {
    const struct device *device;
    int index; /* of the GPU, for the threads that load */
    cublasLtHandle_t handle;
    void *workspace;
    struct plan plans[PLANS];
    int n_plans, oldest;
};

struct linear_cuda {
    struct linear_cuda_library *library;
    struct linear_shape shape;
    void *weights; /* [n_out][n_in] bf16, on the GPU; borrowed where the host keeps them */
    bf16 *kept;    /* the same, of the host; NULL: they are resident */
    float *bias;   /* [n_out] on the GPU, or NULL */
};

static int blaslt_check(cublasStatus_t status, const char *what, struct error *err)
{
    if (status == CUBLAS_STATUS_SUCCESS)
        return 0;
    return error_set(err, status == CUBLAS_STATUS_ALLOC_FAILED ? ERROR_RESOURCE : ERROR_CLUSTER,
                     "linear layer: %s: cuBLASLt says %s", what, cublasLtGetStatusString(status));
}

/* ---- the library ---- */

size_t linear_cuda_library_bytes(void)
{
    return WORKSPACE_BYTES;
}

struct linear_cuda_library *linear_cuda_open(const struct device *device, struct error *err)
{
    struct linear_cuda_library *library = calloc(1, sizeof *library);
    if (!library) {
        error_set(err, ERROR_RESOURCE, "no memory for linear layers");
        return NULL;
    }
    library->device = device;
    library->workspace = device->alloc(WORKSPACE_BYTES, "the workspace of matrix products", err);
    if (!library->workspace || gpu_check(cudaGetDevice(&library->index), "asking which GPU it is", err) != 0 ||
        blaslt_check(cublasLtCreate(&library->handle), "beginning", err) != 0) {
        linear_cuda_close(library);
        return NULL;
    }
    return library;
}

static void plan_free(struct plan *plan)
{
    if (plan->product)
        cublasLtMatmulDescDestroy(plan->product);
    if (plan->weights)
        cublasLtMatrixLayoutDestroy(plan->weights);
    if (plan->x)
        cublasLtMatrixLayoutDestroy(plan->x);
    if (plan->y)
        cublasLtMatrixLayoutDestroy(plan->y);
    *plan = (struct plan){0};
}

void linear_cuda_close(struct linear_cuda_library *library)
{
    if (!library)
        return;
    for (int i = 0; i < library->n_plans; i++)
        plan_free(&library->plans[i]);
    if (library->handle)
        cublasLtDestroy(library->handle);
    library->device->free(library->workspace);
    free(library);
}

/* ---- plans ---- */

static int plan_describe(struct plan *plan, struct error *err)
{
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue = plan->with_bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    const uint64_t n_in = (uint64_t)plan->n_in, n_out = (uint64_t)plan->n_out, rows = (uint64_t)plan->rows;
    cublasStatus_t status = cublasLtMatmulDescCreate(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                                sizeof transposed);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                                sizeof epilogue);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutCreate(&plan->weights, CUDA_R_16BF, n_in, n_out, plan->n_in);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutCreate(&plan->x, CUDA_R_16BF, n_in, rows, plan->n_in);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutCreate(&plan->y, CUDA_R_32F, n_out, rows, plan->n_out);
    return blaslt_check(status, "describing a product", err);
}

/* Linears of one shape share a plan and have biases of their own. */
static int plan_take_bias(const struct plan *plan, const struct linear_cuda *linear, struct error *err)
{
    if (!plan->with_bias)
        return 0;
    return blaslt_check(cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                                       &linear->bias, sizeof linear->bias),
                        "setting a bias", err);
}

/* What cuBLASLt has to know to choose. The weights have an allocation of their own, which is as aligned as it takes
 * for granted. */
static cublasStatus_t preference_fill(cublasLtMatmulPreference_t preference)
{
    static const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        uint32_t bytes;
    } alignments[] = {{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, LINEAR_CUDA_ALIGN},
                      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, LINEAR_CUDA_ALIGN},
                      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, LINEAR_CUDA_ALIGN}};
    cublasStatus_t status = cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE_BYTES, sizeof WORKSPACE_BYTES);
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments && status == CUBLAS_STATUS_SUCCESS; i++)
        status = cublasLtMatmulPreferenceSetAttribute(preference, alignments[i].attribute, &alignments[i].bytes,
                                                      sizeof alignments[i].bytes);
    return status;
}

static int plan_choose(const struct linear_cuda_library *library, struct plan *plan, struct error *err)
{
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t best;
    int found = 0;
    cublasStatus_t status = cublasLtMatmulPreferenceCreate(&preference);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = preference_fill(preference);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulAlgoGetHeuristic(library->handle, plan->product, plan->weights, plan->x, plan->y,
                                                plan->y, preference, 1, &best, &found);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = found == 1 ? best.state : CUBLAS_STATUS_NOT_SUPPORTED;
    if (preference)
        cublasLtMatmulPreferenceDestroy(preference);
    if (blaslt_check(status, "choosing a product", err) != 0)
        return error_wrap(err, "%lld rows of %lld to %lld", (long long)plan->rows, (long long)plan->n_in,
                          (long long)plan->n_out);
    plan->algorithm = best.algo;
    return 0;
}

/* The plan of a shape: one of those made, or a new one in the place of the oldest. */
static struct plan *plan_of(struct linear_cuda_library *library, const struct linear_cuda *linear, int64_t rows,
                            struct error *err)
{
    const struct linear_shape *shape = &linear->shape;
    for (int i = 0; i < library->n_plans; i++) {
        struct plan *plan = &library->plans[i];
        if (plan->rows == rows && plan->n_in == shape->n_in && plan->n_out == shape->n_out &&
            plan->with_bias == (linear->bias != NULL))
            return plan;
    }
    struct plan *plan = &library->plans[library->n_plans < PLANS ? library->n_plans++ : library->oldest++ % PLANS];
    plan_free(plan);
    *plan =
        (struct plan){.n_in = shape->n_in, .n_out = shape->n_out, .rows = rows, .with_bias = linear->bias != NULL};
    if (plan_describe(plan, err) == 0 && plan_take_bias(plan, linear, err) == 0 &&
        plan_choose(library, plan, err) == 0)
        return plan;
    plan_free(plan);
    return NULL;
}

/* ---- linears ---- */

size_t linear_cuda_weight_bytes(const struct linear_shape *shape)
{
    return (size_t)shape->n_out * (size_t)shape->n_in * sizeof(bf16);
}

size_t linear_cuda_bias_bytes(const struct linear_shape *shape)
{
    return shape->bias ? (size_t)shape->n_out * sizeof *shape->bias : 0;
}

static int take_memory(struct linear_cuda *linear, void *place, struct error *err)
{
    const struct device *device = linear->library->device;
    const struct linear_shape *shape = &linear->shape;
    const size_t bias_bytes = linear_cuda_bias_bytes(shape), bytes = linear_cuda_weight_bytes(shape);
    if (place && !(linear->kept = device->host_alloc(bytes, "a matrix", err)))
        return -1;
    if (!(linear->weights = place ? place : device->alloc(bytes, "a matrix", err)))
        return -1;
    if (!shape->bias)
        return 0;
    linear->bias = device->alloc(bias_bytes, "a bias", err);
    if (!linear->bias || device->copy(linear->bias, shape->bias, bias_bytes, DEVICE_FROM_HOST, NULL, err) != 0)
        return -1;
    return device->stream_wait(NULL, err);
}

struct linear_cuda *linear_cuda_create(struct linear_cuda_library *library, const struct linear_shape *shape,
                                       void *place, struct error *err)
{
    if (shape->dtype != DTYPE_BF16) {
        error_set(err, ERROR_USAGE, "linear layer: a GPU has no matrix product of type %s here",
                  dtype_name(shape->dtype));
        return NULL;
    }
    struct linear_cuda *linear = calloc(1, sizeof *linear);
    if (!linear) {
        error_set(err, ERROR_RESOURCE, "no memory for a linear layer");
        return NULL;
    }
    linear->library = library;
    linear->shape = *shape;
    if (take_memory(linear, place, err) != 0) {
        linear_cuda_free(linear);
        return NULL;
    }
    linear->shape.bias = NULL; /* it was borrowed for the call */
    return linear;
}

void linear_cuda_free(struct linear_cuda *linear)
{
    if (!linear)
        return;
    const struct device *device = linear->library->device;
    if (!linear->kept)
        device->free(linear->weights);
    device->host_free(linear->kept);
    device->free(linear->bias);
    free(linear);
}

/* Unpack, round, copy, panel by panel: `panel` in f32, `rounded` pinned; what the host keeps is rounded to its
 * place. */
static int load_panels(struct linear_cuda *linear, struct unpack *source, float *panel, bf16 *rounded,
                       struct error *err)
{
    const struct linear_shape *shape = &linear->shape;
    const int64_t most = i64_min(PANEL_ROWS, shape->n_out);
    for (int64_t first = 0; first < shape->n_out; first += most) {
        const int64_t rows = i64_min(most, shape->n_out - first), n = rows * shape->n_in, at = first * shape->n_in;
        if (unpack_rows(source, rows, panel, err) != 0)
            return -1;
        ops_store(panel, linear->kept ? linear->kept + at : rounded, DTYPE_BF16, n);
        if (!linear->kept && gpu_check(cudaMemcpy((bf16 *)linear->weights + at, rounded,
                                                  (size_t)n * sizeof *rounded, cudaMemcpyHostToDevice),
                                       "copying weights to the GPU", err) != 0)
            return -1;
    }
    return 0;
}

int linear_cuda_load(struct linear_cuda *linear, const struct tensor *const *parts, int n_parts, struct error *err)
{
    const struct linear_shape *shape = &linear->shape;
    const struct unpack_shape rows_shape = {shape->n_in, shape->n_out, shape->dtype};
    const struct device *device = linear->library->device;
    const size_t elements = (size_t)i64_min(PANEL_ROWS, shape->n_out) * (size_t)shape->n_in;
    struct unpack source;
    if (unpack_begin(&source, &rows_shape, parts, n_parts, err) != 0 ||
        gpu_check(cudaSetDevice(linear->library->index), "taking a GPU", err) != 0)
        return -1;
    float *panel = malloc(elements * sizeof *panel);
    if (!panel)
        return error_set(err, ERROR_RESOURCE, "no memory to unpack tensor %s", parts[0]->name);
    bf16 *rounded = NULL;
    if (!linear->kept)
        rounded = device->host_alloc(elements * sizeof *rounded, "weights on their way to the GPU", err);
    const int status = rounded || linear->kept ? load_panels(linear, &source, panel, rounded, err) : -1;
    device->host_free(rounded);
    free(panel);
    return status;
}

int linear_cuda_fetch(const struct linear_cuda *linear, cudaStream_t stream, struct error *err)
{
    if (!linear->kept)
        return 0;
    return gpu_check(cudaMemcpyAsync(linear->weights, linear->kept, linear_cuda_weight_bytes(&linear->shape),
                                     cudaMemcpyHostToDevice, stream),
                     "copying weights to the GPU", err);
}

const float *linear_cuda_bias(const struct linear_cuda *linear)
{
    return linear->bias;
}

int linear_cuda_apply(struct linear_cuda *linear, const struct linear_rows *rows, cudaStream_t stream,
                      struct error *err)
{
    struct linear_cuda_library *library = linear->library;
    const float one = 1, zero = 0;
    if (rows->rows == 0)
        return 0;
    const struct plan *plan = plan_of(library, linear, rows->rows, err);
    if (!plan || plan_take_bias(plan, linear, err) != 0)
        return -1;
    return blaslt_check(cublasLtMatmul(library->handle, plan->product, &one, linear->weights, plan->weights,
                                       rows->x, plan->x, &zero, rows->y, plan->y, rows->y, plan->y,
                                       &plan->algorithm, library->workspace, WORKSPACE_BYTES, stream),
                        "a product", err);
}
