#include "attention/transport_mpi.h"

#include <stdlib.h>

enum { TAG = 1 };

/* MPI counts are ints, so a hop goes in pieces, one at a time each way: a piece is long enough to fill the link,
 * and two requests do for a hop of any size. */
static const size_t PIECE_BYTES = (size_t)1 << 30;

/* One direction of the hop in flight. */
struct stream {
    char *at;      /* the piece under way */
    size_t piece;  /* its bytes; 0: nothing is under way */
    size_t behind; /* bytes that follow it */
};

struct transport_mpi {
    struct transport base;
    MPI_Comm mpi; /* our own copy: no message of others can be taken for ours */
    int next, previous;
    size_t piece_bytes;
    struct stream send, receive;
    MPI_Request requests[2]; /* of send and receive; MPI_REQUEST_NULL when over */
};

enum { SEND, RECEIVE };

/* Post the next piece of a direction, if there is one. */
static int post_piece(struct transport_mpi *self, int way, struct error *err)
{
    struct stream *stream = way == SEND ? &self->send : &self->receive;
    stream->at += stream->piece;
    stream->piece = stream->behind < self->piece_bytes ? stream->behind : self->piece_bytes;
    stream->behind -= stream->piece;
    if (stream->piece == 0)
        return 0;
    int bytes = (int)stream->piece, code;
    if (way == SEND)
        code = MPI_Isend(stream->at, bytes, MPI_BYTE, self->next, TAG, self->mpi, &self->requests[SEND]);
    else
        code = MPI_Irecv(stream->at, bytes, MPI_BYTE, self->previous, TAG, self->mpi, &self->requests[RECEIVE]);
    return comm_check(code, way == SEND ? "sending round the ring" : "receiving round the ring", err);
}

static int mpi_start(struct transport *base, const struct transport_hop *hop, struct error *err)
{
    struct transport_mpi *self = (struct transport_mpi *)base;
    self->send = (struct stream){.at = (char *)hop->send, .behind = hop->send_bytes};
    self->receive = (struct stream){.at = hop->receive, .behind = hop->receive_bytes};
    if (post_piece(self, RECEIVE, err) < 0)
        return -1;
    return post_piece(self, SEND, err);
}

/* A piece is over: is it all there, and what follows? */
static int piece_over(struct transport_mpi *self, int way, const MPI_Status *status, struct error *err)
{
    if (way == RECEIVE) {
        int bytes = 0;
        if (comm_check(MPI_Get_count(status, MPI_BYTE, &bytes), "receiving round the ring", err) < 0)
            return -1;
        if ((size_t)bytes != self->receive.piece)
            return error_set(err, ERROR_CLUSTER, "rank %d of the ring sent %d bytes where %zu were due",
                             self->previous, bytes, self->receive.piece);
    }
    return post_piece(self, way, err);
}

static bool is_over(const struct transport_mpi *self)
{
    return self->send.piece == 0 && self->receive.piece == 0;
}

static int mpi_test(struct transport *base, bool *over, struct error *err)
{
    struct transport_mpi *self = (struct transport_mpi *)base;
    MPI_Status status;
    int way = MPI_UNDEFINED, done = 0;
    *over = is_over(self);
    if (*over)
        return 0;
    if (comm_check(MPI_Testany(2, self->requests, &way, &done, &status), "a hop of the ring", err) < 0)
        return -1;
    if (done && way != MPI_UNDEFINED && piece_over(self, way, &status, err) < 0)
        return -1;
    *over = is_over(self);
    return 0;
}

static int mpi_finish(struct transport *base, struct error *err)
{
    struct transport_mpi *self = (struct transport_mpi *)base;
    while (!is_over(self)) {
        MPI_Status status;
        int way;
        if (comm_check(MPI_Waitany(2, self->requests, &way, &status), "a hop of the ring", err) < 0 ||
            piece_over(self, way, &status, err) < 0)
            return -1;
    }
    return 0;
}

static void mpi_free(struct transport *base)
{
    struct transport_mpi *self = (struct transport_mpi *)base;
    if (!self)
        return;
    MPI_Comm_free(&self->mpi);
    free(self);
}

struct transport *transport_mpi_create_pieces(const struct comm *group, size_t piece_bytes, struct error *err)
{
    struct transport_mpi *self = calloc(1, sizeof *self);
    if (!self) {
        error_set(err, ERROR_RESOURCE, "no memory for the ring's transport");
        return NULL;
    }
    self->base = (struct transport){
        .name = "mpi", .start = mpi_start, .test = mpi_test, .finish = mpi_finish, .free = mpi_free};
    self->next = (group->rank + 1) % group->size;
    self->previous = (group->rank + group->size - 1) % group->size;
    self->piece_bytes = piece_bytes;
    self->requests[SEND] = self->requests[RECEIVE] = MPI_REQUEST_NULL;
    if (comm_check(MPI_Comm_dup(group->mpi, &self->mpi), "setting up the ring", err) < 0) {
        free(self);
        return NULL;
    }
    return &self->base;
}

struct transport *transport_mpi_create(const struct comm *group, struct error *err)
{
    return transport_mpi_create_pieces(group, PIECE_BYTES, err);
}
