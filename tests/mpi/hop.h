/* A hop of bytes in a device's memory, which are looked at when they have arrived. */
#ifndef LONGHAUL_TESTS_MPI_HOP_H
#define LONGHAUL_TESTS_MPI_HOP_H

#include "tests/mpi/mpi_test.h"

#include <stdlib.h>
#include <string.h>

#include "attention/transport.h"

enum { BEHIND = 77 }; /* the byte behind what arrives */

static unsigned char byte_of(int rank, int hop, size_t i)
{
    return (unsigned char)((size_t)rank * 101 + (size_t)hop * 7 + i * 13 + i / 251);
}

static void move(const struct device *device, void *to, const void *from, size_t n, enum device_copy direction)
{
    assert_int_equal(device->copy(to, from, n, direction, NULL, &err), 0);
    assert_int_equal(device->stream_wait(NULL, &err), 0);
}

/* Each rank sends bytes_of[rank] bytes of its own pattern; the one before's arrive. Every other hop is polled. */
static void hop(struct transport *transport, const struct device *device, const size_t *bytes_of, int number)
{
    const int previous = (world.rank + world.size - 1) % world.size;
    const size_t n = bytes_of[world.rank], due = bytes_of[previous];
    unsigned char *bytes = malloc((n > due ? n : due) + 1);
    void *send = device->alloc(n + 1, "what is sent", &err), *receive = device->alloc(due + 1, "what comes", &err);
    assert_true(bytes && send && receive);
    for (size_t i = 0; i < n; i++)
        bytes[i] = byte_of(world.rank, number, i);
    move(device, send, bytes, n, DEVICE_FROM_HOST);
    memset(bytes, BEHIND, due + 1);
    move(device, receive, bytes, due + 1, DEVICE_FROM_HOST);
    const struct transport_hop way = {send, n, receive, due};
    assert_int_equal(transport->start(transport, &way, &err), 0);
    for (bool over = false; number % 2 == 0 && !over;)
        assert_int_equal(transport->test(transport, &over, &err), 0);
    assert_int_equal(transport->finish(transport, &err), 0);
    move(device, bytes, receive, due + 1, DEVICE_TO_HOST);
    for (size_t i = 0; i < due; i++)
        assert_int_equal(bytes[i], byte_of(previous, number, i));
    assert_int_equal(bytes[due], BEHIND);
    device->free(receive);
    device->free(send);
    free(bytes);
}

#endif
