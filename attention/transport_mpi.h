/* The MPI transport's own knob, for tests; the program uses transport_mpi_create() of transport.h. */
#ifndef LONGHAUL_ATTENTION_TRANSPORT_MPI_H
#define LONGHAUL_ATTENTION_TRANSPORT_MPI_H

#include "attention/transport.h"

/* As transport_mpi_create, with messages of at most piece_bytes (1 .. INT_MAX), the same on every rank. */
struct transport *transport_mpi_create_pieces(const struct comm *group, size_t piece_bytes, struct error *err);

#endif
