#include "attention/transport.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* Where a rank's device is: the node's name and the device's place in it. */
struct seat {
    char node[MPI_MAX_PROCESSOR_NAME];
    char place[32];
};

static int take_seats(const struct comm *group, const struct device *device, struct seat *seats, struct error *err)
{
    struct seat own = {0};
    int length;
    if (comm_check(MPI_Get_processor_name(own.node, &length), "asking for the node's name", err) < 0)
        return -1;
    strncpy(own.place, device->place, sizeof own.place - 1);
    const int bytes = (int)sizeof own;
    return comm_check(MPI_Allgather(&own, bytes, MPI_BYTE, seats, bytes, MPI_BYTE, group->mpi),
                      "asking for the ranks' devices", err);
}

static bool same_node(const struct seat *a, const struct seat *b)
{
    return strcmp(a->node, b->node) == 0;
}

/* How many devices the seats are, and on how many nodes. */
static void count_seats(const struct seat *seats, int n, int *devices, int *nodes)
{
    *devices = *nodes = 0;
    for (int i = 0; i < n; i++) {
        bool new_node = true, new_device = true;
        for (int j = 0; j < i; j++) {
            new_node = new_node && !same_node(&seats[i], &seats[j]);
            new_device =
                new_device && !(same_node(&seats[i], &seats[j]) && strcmp(seats[i].place, seats[j].place) == 0);
        }
        *nodes += new_node;
        *devices += new_device;
    }
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
    struct seat *seats = calloc((size_t)group->size, sizeof *seats);
    if (!seats) {
        error_set(err, ERROR_RESOURCE, "no memory for the seats of %d ranks", group->size);
        return NULL;
    }
    int devices = 0, nodes = 0;
    const int status = take_seats(group, device, seats, err);
    count_seats(seats, status == 0 ? group->size : 0, &devices, &nodes);
    free(seats);
    if (status != 0)
        return NULL;
    struct transport *transport = devices == group->size ? create_nccl(group, device, err) : NULL;
    if (!transport)
        transport = transport_staged_create(group, device, most_bytes, err);
    if (transport && group->rank == 0)
        log_info("ring of %d ranks on %d GPUs of %d nodes: %s", group->size, devices, nodes, transport->name);
    return transport;
}
