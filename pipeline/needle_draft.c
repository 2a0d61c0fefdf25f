#include "pipeline/needle_draft.h"

#include <string.h>

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t draw(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

int64_t draft_below(struct draft *draft, int64_t n)
{
    const uint64_t high = draw(&draft->random) >> 32, low = draw(&draft->random) >> 32;
    const uint64_t scaled =
        (uint64_t)n < (uint64_t)1 << 32 ? high * (uint64_t)n >> 32 : (high << 32 | low) % (uint64_t)n;
    return (int64_t)scaled;
}

void draft_choose(struct draft *draft, int64_t n, int k, int64_t *out)
{
    for (int i = 0; i < k; i++) { /* Floyd's sampling, kept in order */
        int64_t chosen = draft_below(draft, n - k + i + 1);
        for (int j = 0; j < i; j++)
            if (out[j] == chosen)
                chosen = n - k + i;
        int at = i;
        for (; at > 0 && out[at - 1] > chosen; at--)
            out[at] = out[at - 1];
        out[at] = chosen;
    }
}

void draft_shuffle(struct draft *draft, int32_t *items, int64_t n)
{
    for (int64_t i = n - 1; i > 0; i--) {
        const int64_t other = draft_below(draft, i + 1);
        const int32_t item = items[i];
        items[i] = items[other];
        items[other] = item;
    }
}

void draft_expect(struct draft *draft, const char *answer)
{
    snprintf(draft->expected[draft->n_expected++], NEEDLE_EXPECTED_BYTES, "%s", answer);
}
