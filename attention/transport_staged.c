/* MPI hops of a device's buffers, through pinned memory of the host. */
#include <stdlib.h>

#include "attention/transport.h"

struct transport_staged {
    struct transport base;
    struct transport *inner; /* between the host's buffers */
    const struct device *device;
    struct device_stream *stream;
    size_t most_bytes;
    void *sent, *received; /* [most_bytes] of the host */
    struct transport_hop hop;
    bool in_flight;
};

static int staged_start(struct transport *base, const struct transport_hop *hop, struct error *err)
{
    struct transport_staged *self = (struct transport_staged *)base;
    if (hop->send_bytes > self->most_bytes || hop->receive_bytes > self->most_bytes)
        return error_set(err, ERROR_INTERNAL, "a hop of %zu and %zu bytes through buffers of %zu", hop->send_bytes,
                         hop->receive_bytes, self->most_bytes);
    if (self->device->copy(self->sent, hop->send, hop->send_bytes, DEVICE_TO_HOST, self->stream, err) != 0 ||
        self->device->stream_wait(self->stream, err) != 0)
        return -1;
    self->hop = *hop;
    self->in_flight = true;
    const struct transport_hop of_host = {self->sent, hop->send_bytes, self->received, hop->receive_bytes};
    return self->inner->start(self->inner, &of_host, err);
}

/* What has arrived, to the device. */
static int deliver(struct transport_staged *self, struct error *err)
{
    if (!self->in_flight)
        return 0;
    self->in_flight = false;
    if (self->device->copy(self->hop.receive, self->received, self->hop.receive_bytes, DEVICE_FROM_HOST,
                           self->stream, err) != 0)
        return -1;
    return self->device->stream_wait(self->stream, err);
}

static int staged_test(struct transport *base, bool *over, struct error *err)
{
    struct transport_staged *self = (struct transport_staged *)base;
    if (self->inner->test(self->inner, over, err) != 0)
        return -1;
    return *over ? deliver(self, err) : 0;
}

static int staged_finish(struct transport *base, struct error *err)
{
    struct transport_staged *self = (struct transport_staged *)base;
    return self->inner->finish(self->inner, err) == 0 ? deliver(self, err) : -1;
}

static void staged_free(struct transport *base)
{
    struct transport_staged *self = (struct transport_staged *)base;
    if (!self)
        return;
    if (self->inner)
        self->inner->free(self->inner);
    self->device->stream_free(self->stream);
    self->device->host_free(self->sent);
    self->device->host_free(self->received);
    free(self);
}

struct transport *transport_staged_create(const struct comm *group, const struct device *device, size_t most_bytes,
                                          struct error *err)
{
    struct transport_staged *self = calloc(1, sizeof *self);
    if (!self) {
        error_set(err, ERROR_RESOURCE, "no memory for the ring's transport");
        return NULL;
    }
    self->base = (struct transport){.name = "mpi through the host",
                                    .start = staged_start,
                                    .test = staged_test,
                                    .finish = staged_finish,
                                    .free = staged_free};
    self->device = device;
    self->most_bytes = most_bytes;
    if (!(self->inner = transport_mpi_create(group, err)) || device->stream_create(&self->stream, err) != 0 ||
        !(self->sent = device->host_alloc(most_bytes, "what is sent round the ring", err)) ||
        !(self->received = device->host_alloc(most_bytes, "what arrives round the ring", err))) {
        staged_free(&self->base);
        return NULL;
    }
    return &self->base;
}
