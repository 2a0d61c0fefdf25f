#include "base/device.h"

const struct device *device_cuda(int node_rank, struct error *err)
{
    (void)node_rank;
    error_set(err, ERROR_USAGE, "this program was built without CUDA (README, \"On GPUs\")");
    return NULL;
}

bool device_cuda_has_driver(void)
{
    return false;
}
