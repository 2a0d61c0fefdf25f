#include "tests/mpi/mpi_test.h"

#include <stdlib.h>
#include <string.h>

#include "attention/transport_mpi.h"
#include "tests/mpi/hop.h"

static void hops_with_pieces_of(size_t piece_bytes, const size_t *bytes_of)
{
    struct transport *transport = transport_mpi_create_pieces(&world, piece_bytes, &err);
    assert_non_null(transport);
    for (int number = 0; number < 6; number++)
        hop(transport, device_cpu(), bytes_of, number);
    transport->free(transport);
}

static void unequal_messages_arrive_whole(void **state)
{
    (void)state;
    hops_with_pieces_of(1 << 30, (const size_t[]){100000, 3, 4097, 65536});
}

static void messages_above_the_piece_size_arrive_whole(void **state)
{
    (void)state;
    hops_with_pieces_of(1000, (const size_t[]){100000, 1000, 1001, 999});
}

static void messages_through_other_buffers_arrive_whole(void **state)
{
    (void)state;
    struct transport *transport = transport_staged_create(&world, device_cpu(), 100000, &err);
    assert_non_null(transport);
    for (int number = 0; number < 6; number++)
        hop(transport, device_cpu(), (const size_t[]){100000, 3, 0, 65536}, number);
    const unsigned char none = 0;
    struct transport_hop too_large = {&none, 100001, (void *)&none, 0};
    assert_int_equal(transport->start(transport, &too_large, &err), -1);
    assert_int_equal(err.code, ERROR_INTERNAL);
    transport->free(transport);
}

static void pieces_of_one_byte_arrive_in_order(void **state)
{
    (void)state;
    hops_with_pieces_of(1, (const size_t[]){37, 1, 300, 2});
}

static void empty_messages_are_over_at_once(void **state)
{
    (void)state;
    hops_with_pieces_of(1 << 30, (const size_t[]){0, 5, 0, 0});
    hops_with_pieces_of(1 << 30, (const size_t[]){0, 0, 0, 0});
}

static void a_short_message_is_an_error(void **state)
{
    (void)state;
    struct transport *transport = transport_mpi_create(&world, &err);
    unsigned char sent[50] = {0}, received[100];
    struct transport_hop way = {sent, sizeof sent, received, sizeof received};
    assert_non_null(transport);
    assert_int_equal(transport->start(transport, &way, &err), 0);
    assert_int_equal(transport->finish(transport, &err), -1);
    assert_int_equal(err.code, ERROR_CLUSTER);
    assert_non_null(strstr(err.text, "sent 50 bytes where 100 were due"));
    assert_int_equal(comm_barrier(&world, &err), 0);
    transport->free(transport);
}

static void a_hop_above_two_gigabytes_arrives_whole(void **state)
{
    (void)state;
    /* One rank sends to itself, so that the test takes no more than 4 GiB. */
    if (world.size > 1)
        return;
    const size_t n = ((size_t)1 << 31) + 12345;
    unsigned char *send = calloc(n, 1), *receive = calloc(n, 1);
    struct transport *transport = transport_mpi_create(&world, &err);
    assert_true(send && receive && transport);
    send[n - 1] = 9;
    send[(size_t)1 << 30] = 8;
    struct transport_hop way = {send, n, receive, n};
    assert_int_equal(transport->start(transport, &way, &err), 0);
    assert_int_equal(transport->finish(transport, &err), 0);
    assert_memory_equal(send, receive, n);
    transport->free(transport);
    free(receive);
    free(send);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        mpi_unit_test(unequal_messages_arrive_whole),
        mpi_unit_test(messages_above_the_piece_size_arrive_whole),
        mpi_unit_test(messages_through_other_buffers_arrive_whole),
        mpi_unit_test(pieces_of_one_byte_arrive_in_order),
        mpi_unit_test(empty_messages_are_over_at_once),
        mpi_unit_test(a_short_message_is_an_error),
        mpi_unit_test(a_hop_above_two_gigabytes_arrives_whole),
    };
    return mpi_run_tests(tests);
}
