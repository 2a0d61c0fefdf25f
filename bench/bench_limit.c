/* bench_limit MODEL.gguf TOKENS POLICY THREADS: the least time that reading so many tokens can take on this
 * machine, and what it goes into: what walls are held against. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/limit.h"
#include "io/gguf.h"

enum { SEGMENT = 2048 };

static void print(const struct model *model, const struct policy_spec *spec, int64_t n, int threads)
{
    const struct limit limit = limit_of(model, spec, n, SEGMENT);
    printf("peaks of a core: %.0f GFLOP/s, %.0f G multiply-adds/s in eight bits\n", limit.peak,
           limit.peak_of_bytes);
    printf("%" PRId64 " tokens on %d threads: %.0f s; linear layers and head %.0f, keys seen %.0f, search %.0f\n",
           n, threads, limit_seconds(&limit) / threads, limit.linear / threads, limit.attended / threads,
           limit.searched / threads);
}

int main(int argc, char **argv)
{
    struct error err = {0};
    struct policy_spec spec;
    struct gguf *gguf = NULL;
    struct model *model = NULL;
    if (argc != 5) {
        fprintf(stderr, "bench_limit MODEL.gguf TOKENS POLICY THREADS\n");
        return ERROR_USAGE;
    }
    if (policy_parse(argv[3], &spec, &err) == 0 && (gguf = gguf_open(argv[1], &err)) &&
        (model = model_open(gguf_bundle(gguf), &err)))
        print(model, &spec, strtoll(argv[2], NULL, 10), atoi(argv[4]));
    if (err.code != ERROR_NONE)
        fprintf(stderr, "bench_limit: %s\n", err.text);
    model_free(model);
    gguf_free(gguf);
    return err.code;
}
