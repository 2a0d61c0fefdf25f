/* pass-Q: the queries go round with their sums, the packed keys stay. After as many hops as there are ranks every
 * block is home. A block can only leave when its sums are done, so hops are not hidden: this is for short segments
 * over long memories, where few queries travel and each is much work (attention/ring_cost.h). (Yang et al. 2024,
 * arXiv:2411.01783.) */
#include "attention/ring_parts.h"

int ring_pass_q(struct ring_round *round, struct error *err)
{
    struct ring *ring = round->ring;
    const size_t *places = ring->plan.blocks;
    int place = round->block.start == ring->memory + places[1];
    for (int hop = 0; hop < ring->options.group->size; hop++) {
        const struct ring_block here = round->block;
        const int64_t tokens = round->shares[ring_rank_before(ring, hop + 1)].block;
        if (ring_attend_message(ring, &here, &round->piece, err) < 0)
            return -1;
        place = 1 - place;
        round->block = ring_block_at(&ring->options, ring->memory + places[place], tokens);
        const struct transport_hop way = {here.start, here.bytes, round->block.start, round->block.bytes};
        if (ring_hop_start(ring, &way, err) < 0 || ring_hop_finish(ring, err) < 0)
            return -1;
    }
    return 0;
}
