/* pass-KV: the packed keys go round, the queries stay. While a rank attends to one piece the next is on its way
 * (Liu et al. 2023). */
#include "attention/ring_parts.h"

/* Tokens of a rank's piece in this round. */
static int64_t piece_tokens(const struct ring_round *round, int rank)
{
    const int64_t rest = i64_max(0, round->shares[rank].shard - round->first);
    return i64_min(rest, round->ring->options.max_piece);
}

int ring_pass_kv(struct ring_round *round, struct error *err)
{
    struct ring *ring = round->ring;
    const int ranks = ring->options.group->size;
    struct ring_message here = round->piece, next = {0};
    for (int hop = 0; hop < ranks; hop++, here = next) {
        if (hop + 1 < ranks) {
            const int64_t tokens = piece_tokens(round, ring_rank_before(ring, hop + 1));
            next = ring_message_at(&ring->options, ring->memory + ring->plan.messages[(hop + 1) % 2], tokens);
            if (ring_hop_start(ring, &(struct transport_hop){here.start, here.bytes, next.start, next.bytes}, err) <
                0)
                return -1;
        }
        if (ring_attend_message(ring, &round->block, &here, err) < 0 || ring_hop_finish(ring, err) < 0)
            return -1;
    }
    return 0;
}
