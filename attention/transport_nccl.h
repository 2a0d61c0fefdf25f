/* NCCL's transport with another deadline for a hop than transport_nccl_create's, for tests. */
#ifndef LONGHAUL_ATTENTION_TRANSPORT_NCCL_H
#define LONGHAUL_ATTENTION_TRANSPORT_NCCL_H

#include "attention/transport.h"

/* A hop that is not over after so many seconds is an error of the rank that waits for it. */
struct transport *transport_nccl_create_patient(const struct comm *group, double hop_seconds, struct error *err);

#endif
