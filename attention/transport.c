#include "attention/transport.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"

/* How many devices the ranks have, and on how many nodes. */
static int count_devices(const struct comm *group, const struct device *device, int64_t *devices, int64_t *nodes,
                         struct error *err)
{
    char node[MPI_MAX_PROCESSOR_NAME], place[sizeof node + 64];
    int length;
    if (comm_check(MPI_Get_processor_name(node, &length), "asking for the node's name", err) < 0)
        return -1;
    snprintf(place, sizeof place, "%s %s", device->place, node);
    return comm_distinct(group, node, nodes, err) == 0 ? comm_distinct(group, place, devices, err) : -1;
}

/* By NCCL on all ranks of the group, or on none: then NULL, without an error where staging will do instead. */
static struct transport *create_nccl(const struct comm *group, const struct device *device, struct error *err)
{
    struct error own = {0};
    int64_t failed;
    struct transport *transport = transport_nccl_create(group, device, &own);
    if (comm_max(group, transport == NULL, &failed, err) == 0 && !failed)
        return transport;
    if (!transport && own.code != ERROR_USAGE)
        log_warn("ring without NCCL: %s", own.text);
    if (transport)
        transport->free(transport);
    return NULL;
}

struct transport *transport_create(const struct comm *group, const struct device *device, size_t most_bytes,
                                   struct error *err)
{
    if (device->host_visible)
        return transport_mpi_create(group, err);
    int64_t devices, nodes;
    if (count_devices(group, device, &devices, &nodes, err) != 0)
        return NULL;
    struct transport *transport = devices == group->size ? create_nccl(group, device, err) : NULL;
    if (!transport)
        transport = transport_staged_create(group, device, most_bytes, err);
    if (transport && group->rank == 0)
        log_info("ring of %d ranks on %" PRId64 " GPUs of %" PRId64 " nodes: %s", group->size, devices, nodes,
                 transport->name);
    return transport;
}
