#include "attention/ring_cost.h"

#include <math.h>

#include "base/num.h"

/* Smaller samples mostly time the waking of threads. */
static const size_t LEAST_BYTES = (size_t)64 << 10;
static const double LEAST_FLOPS = 1e7;

struct ring_rates ring_rates_default(int threads)
{
    return (struct ring_rates){.link = 1.25e9, .kernel = 4e10 * threads};
}

static double nearer(double rate, double measured)
{
    return rate + (measured - rate) / 8;
}

void ring_rates_hop(struct ring_rates *rates, size_t bytes, double seconds, bool waited)
{
    const double measured = (double)bytes / seconds;
    if (bytes < LEAST_BYTES || seconds <= 0)
        return;
    if (measured > rates->link)
        rates->link = measured;
    else if (waited)
        rates->link = nearer(rates->link, measured);
}

void ring_rates_attend(struct ring_rates *rates, double flops, double seconds)
{
    if (flops >= LEAST_FLOPS && seconds > 0)
        rates->kernel = nearer(rates->kernel, flops / seconds);
}

/* The slowest rank's: in a ring it holds up all others. */
static struct ring_rates slowest(const struct ring_cost *cost)
{
    struct ring_rates rates = cost->shares[0].rates;
    for (int r = 1; r < cost->ranks; r++) {
        rates.link = fmin(rates.link, cost->shares[r].rates.link);
        rates.kernel = fmin(rates.kernel, cost->shares[r].rates.kernel);
    }
    return rates;
}

/* Of a's queries and b's keys: the tokens before the segment are seen, of b's own block of the segment about half.
 */
static double pairs(const struct ring_share *a, const struct ring_share *b)
{
    return (double)a->block * ((double)b->shard - (double)b->block / 2);
}

struct ring_prediction ring_cost_predict(const struct ring_cost *cost)
{
    const struct ring_rates rates = slowest(cost);
    const int ranks = cost->ranks;
    struct ring_prediction seconds = {0};
    for (int hop = 0; hop < ranks; hop++) {
        double kv = 0, attend = 0, queries = 0;
        for (int x = 0; x < ranks; x++) {
            const struct ring_share *here = &cost->shares[x], *before = &cost->shares[(x + ranks - hop) % ranks];
            const struct ring_share *next = &cost->shares[(x + 2 * ranks - hop - 1) % ranks];
            const double moved = hop + 1 < ranks ? (double)next->shard * cost->key_bytes : 0;
            kv = fmax(kv, fmax(pairs(here, before) * cost->pair_flops / rates.kernel, moved / rates.link));
            attend = fmax(attend, pairs(before, here) * cost->pair_flops / rates.kernel);
            queries = fmax(queries, (double)before->block * cost->query_bytes / rates.link);
        }
        seconds.pass_kv += kv;
        seconds.pass_q += attend + queries * (double)cost->rounds;
    }
    return seconds;
}
