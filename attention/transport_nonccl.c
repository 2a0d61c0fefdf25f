#include "attention/transport_nccl.h"

struct transport *transport_nccl_create(const struct comm *group, const struct device *device, struct error *err)
{
    (void)device;
    return transport_nccl_create_patient(group, 0, err);
}

struct transport *transport_nccl_create_patient(const struct comm *group, double hop_seconds, struct error *err)
{
    (void)group, (void)hop_seconds;
    error_set(err, ERROR_USAGE, "this program was built without NCCL");
    return NULL;
}
