#include "attention/attend_cuda.h"

#include "base/gpu.h"

static const struct attend_cuda_kernel *const fastest_first[] = {&attend_cuda_sm90, &attend_cuda_sm80,
                                                                 &attend_cuda_plain};

const struct attend_cuda_kernel *attend_cuda_choose(int dim, struct error *err)
{
    const int capability = gpu_capability();
    for (size_t i = 0; i < sizeof fastest_first / sizeof fastest_first[0]; i++)
        if (fastest_first[i]->supported(capability, dim))
            return fastest_first[i];
    error_set(err, ERROR_INPUT, "no attention on a GPU of capability %d.%d for heads of dimension %d",
              capability / 10, capability % 10, dim);
    return NULL;
}
