#include "attend_case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/gpu.h"
#include "base/num.h"
#include "tests/worse.h"

enum { KV_HEADS = 2, TILE = 64, SPARE_TILES = 3, WINDOW = 70, MAX_DIM = 256 };

/* The problem in the host's memory, and where its parts are on the device. */
struct problem {
    struct attend_case is;
    int64_t rows, tiles, key_rows; /* of a kv head */
    uint64_t random;
    bf16 *q, *k, *v;
    float *bias, *o, *m, *l;
    int32_t *pages;
    struct attend_span *spans, *shown; /* of all calls together, and of the call under way */
    struct attend_cuda call;
};

static void *must_alloc(size_t n, size_t size)
{
    void *memory = calloc(n + 1, size);
    if (!memory)
        abort();
    return memory;
}

static uint64_t random_below(struct problem *p, uint64_t n)
{
    p->random ^= p->random << 13;
    p->random ^= p->random >> 7;
    p->random ^= p->random << 17;
    return (p->random >> 11) % n;
}

/* about normal, of variance 1 */
static float random_normal(struct problem *p)
{
    double sum = -6;
    for (int i = 0; i < 12; i++)
        sum += (double)random_below(p, 1u << 30) * 0x1p-30;
    return (float)sum;
}

static bf16 *random_numbers(struct problem *p, int64_t n, float size)
{
    bf16 *out = must_alloc((size_t)n, sizeof *out);
    for (int64_t i = 0; i < n; i++)
        out[i] = bf16_from_f32(size * random_normal(p));
    return out;
}

/* ---- what is seen ---- */

static struct attend_span span_of(struct problem *p, int64_t token, struct attend_span before)
{
    const int64_t keys = p->is.keys;
    const int32_t past = (int32_t)i64_max(0, keys - p->is.tokens + token + 1);
    switch (p->is.sight) {
    case SEES_PAST:
        return (struct attend_span){0, past};
    case SEES_WINDOW:
        return (struct attend_span){(int32_t)i64_max(0, past - WINDOW), past};
    case SEES_PARTS: {
        const int64_t step = i64_max(1, 2 * keys / p->is.tokens);
        const int64_t first = i64_min(keys, before.first + (int64_t)random_below(p, (uint64_t)step));
        const int64_t end = i64_max(before.end, first + (int64_t)random_below(p, (uint64_t)(keys + 1)) / 2);
        return (struct attend_span){(int32_t)first, (int32_t)i64_min(keys, end)};
    }
    default:
        return (struct attend_span){0, (int32_t)keys};
    }
}

static void choose_spans(struct problem *p)
{
    struct attend_span before = {0, 0};
    for (int64_t t = 0; t < p->is.tokens; t++) {
        p->spans[t] = before = span_of(p, t, before);
        if (p->is.sight == SEES_PARTS && t % 3 == 1)
            p->spans[t].end = p->spans[t].first;
    }
}

static int64_t row_of_key(const struct problem *p, int64_t key)
{
    return p->is.pages ? (int64_t)TILE * p->pages[key / TILE] + key % TILE : key;
}

/* Not a number, where nothing may be read: in tiles before the first and behind the last key that is seen. */
static void poison(struct problem *p)
{
    unsigned char *seen = must_alloc((size_t)(p->tiles + SPARE_TILES), 1);
    int64_t first = p->is.keys, end = 0;
    for (int64_t t = 0; t < p->is.tokens; t++)
        if (p->spans[t].first < p->spans[t].end) {
            first = i64_min(first, p->spans[t].first);
            end = i64_max(end, p->spans[t].end);
        }
    for (int64_t key = first; key < end; key++)
        seen[row_of_key(p, key) / TILE] = 1;
    for (int64_t row = 0; row < KV_HEADS * p->key_rows; row++)
        if (!seen[row % p->key_rows / TILE]) {
            memset(p->k + row * p->is.dim, 0xff, (size_t)p->is.dim * sizeof *p->k);
            memset(p->v + row * p->is.dim, 0xff, (size_t)p->is.dim * sizeof *p->v);
        }
    free(seen);
}

static void shuffle_pages(struct problem *p)
{
    const int64_t n = p->tiles + SPARE_TILES;
    for (int64_t i = 0; i < n; i++) {
        const int64_t other = (int64_t)random_below(p, (uint64_t)(i + 1));
        p->pages[i] = p->pages[other];
        p->pages[other] = (int32_t)i;
    }
}

static struct problem problem_make(const struct attend_case *one)
{
    struct problem p = {.is = *one, .random = one->seed * 0x9e3779b97f4a7c15u | 1};
    const int64_t dim = one->dim;
    p.rows = one->tokens * one->group;
    p.tiles = i64_ceil_div(one->keys, TILE);
    p.key_rows = (p.tiles + SPARE_TILES) * TILE;
    p.q = random_numbers(&p, KV_HEADS * p.rows * dim, one->size / sqrtf((float)dim));
    p.k = random_numbers(&p, KV_HEADS * p.key_rows * dim, 1);
    p.v = random_numbers(&p, KV_HEADS * p.key_rows * dim, 1);
    p.o = must_alloc((size_t)(KV_HEADS * p.rows * dim), sizeof *p.o);
    p.m = must_alloc((size_t)(KV_HEADS * p.rows), sizeof *p.m);
    p.l = must_alloc((size_t)(KV_HEADS * p.rows), sizeof *p.l);
    p.bias = must_alloc((size_t)one->keys, sizeof *p.bias);
    p.pages = must_alloc((size_t)(p.tiles + SPARE_TILES), sizeof *p.pages);
    p.spans = must_alloc((size_t)one->tokens, sizeof *p.spans);
    p.shown = must_alloc((size_t)one->tokens, sizeof *p.shown);
    for (int64_t i = 0; i < KV_HEADS * p.rows; i++)
        p.m[i] = -INFINITY;
    for (int64_t i = 0; i < one->keys; i++)
        p.bias[i] = one->bias ? 3 * random_normal(&p) : 0;
    shuffle_pages(&p);
    choose_spans(&p);
    poison(&p);
    return p;
}

static void problem_free(struct problem *p)
{
    void *host[] = {p->q, p->k, p->v, p->o, p->m, p->l, p->bias, p->pages, p->spans, p->shown};
    const void *device[] = {p->call.q,     p->call.k, p->call.v, p->call.pages, p->call.bias,
                            p->call.spans, p->call.o, p->call.m, p->call.l};
    for (size_t i = 0; i < sizeof host / sizeof host[0]; i++)
        free(host[i]);
    for (size_t i = 0; i < sizeof device / sizeof device[0]; i++)
        cudaFree((void *)device[i]);
}

/* ---- the device ---- */

static int upload(void *out, const void *from, size_t bytes, struct error *err)
{
    void *to = NULL;
    if (gpu_check(cudaMalloc(&to, bytes), "memory for a test", err) != 0)
        return -1;
    memcpy(out, &to, sizeof to);
    return gpu_check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "copying to the GPU", err);
}

static int upload_all(struct problem *p, struct error *err)
{
    struct attend_cuda *call = &p->call;
    const size_t rows = (size_t)(KV_HEADS * p->rows), dim = (size_t)p->is.dim;
    const size_t key_numbers = (size_t)(KV_HEADS * p->key_rows) * dim, tokens = (size_t)p->is.tokens;
    call->kv_heads = KV_HEADS;
    call->group = p->is.group;
    call->dim = p->is.dim;
    call->tokens = p->is.tokens;
    call->key_rows = p->key_rows;
    if (p->is.pages && upload(&call->pages, p->pages, (size_t)p->tiles * sizeof *p->pages, err) != 0)
        return -1;
    if (p->is.bias && upload(&call->bias, p->bias, (size_t)p->is.keys * sizeof *p->bias, err) != 0)
        return -1;
    return upload(&call->q, p->q, rows * dim * sizeof *p->q, err) != 0 ||
                   upload(&call->k, p->k, key_numbers * sizeof *p->k, err) != 0 ||
                   upload(&call->v, p->v, key_numbers * sizeof *p->v, err) != 0 ||
                   upload(&call->spans, p->spans, tokens * sizeof *p->spans, err) != 0 ||
                   upload(&call->o, p->o, rows * dim * sizeof *p->o, err) != 0 ||
                   upload(&call->m, p->m, rows * sizeof *p->m, err) != 0 ||
                   upload(&call->l, p->l, rows * sizeof *p->l, err) != 0
               ? -1
               : 0;
}

static int download_state(struct problem *p, struct error *err)
{
    const size_t rows = (size_t)(KV_HEADS * p->rows) * sizeof(float);
    cudaError_t code = cudaDeviceSynchronize();
    if (code == cudaSuccess)
        code = cudaMemcpy(p->o, p->call.o, rows * (size_t)p->is.dim, cudaMemcpyDeviceToHost);
    if (code == cudaSuccess)
        code = cudaMemcpy(p->m, p->call.m, rows, cudaMemcpyDeviceToHost);
    if (code == cudaSuccess)
        code = cudaMemcpy(p->l, p->call.l, rows, cudaMemcpyDeviceToHost);
    return gpu_check(code, "attention on the GPU", err);
}

/* How many rows that see nothing in this call are no longer what they were. */
static int64_t count_disturbed(const struct problem *p, const float *o, const float *m, const float *l)
{
    const size_t dim = (size_t)p->is.dim;
    int64_t n = 0;
    for (int64_t i = 0; i < KV_HEADS * p->rows; i++) {
        const struct attend_span shown = p->shown[i % p->rows / p->is.group];
        if (shown.first >= shown.end)
            n += memcmp(o + (size_t)i * dim, p->o + (size_t)i * dim, dim * sizeof *o) != 0 || m[i] != p->m[i] ||
                 l[i] != p->l[i];
    }
    return n;
}

/* One call, over the keys [first, end) of every span. */
static int attend_piece(struct problem *p, const struct attend_cuda_kernel *kernel, int64_t first, int64_t end,
                        struct error *err)
{
    for (int64_t t = 0; t < p->is.tokens; t++)
        p->shown[t] = (struct attend_span){(int32_t)i64_max(p->spans[t].first, first),
                                           (int32_t)i64_min(p->spans[t].end, end)};
    if (gpu_check(cudaMemcpy((void *)p->call.spans, p->shown, (size_t)p->is.tokens * sizeof *p->shown,
                             cudaMemcpyHostToDevice),
                  "copying to the GPU", err) != 0 ||
        kernel->attend(&p->call, NULL, err) != 0)
        return -1;
    return download_state(p, err);
}

static int attend_pieces(struct problem *p, const struct attend_cuda_kernel *kernel, int64_t *disturbed,
                         struct error *err)
{
    const size_t rows = (size_t)(KV_HEADS * p->rows), dim = (size_t)p->is.dim;
    float *o = must_alloc(rows * dim, sizeof *o), *m = must_alloc(rows, sizeof *m),
          *l = must_alloc(rows, sizeof *l);
    int code = 0;
    for (int i = 0; i < p->is.calls && code == 0; i++) {
        memcpy(o, p->o, rows * dim * sizeof *o);
        memcpy(m, p->m, rows * sizeof *m);
        memcpy(l, p->l, rows * sizeof *l);
        code = attend_piece(p, kernel, p->is.keys * i / p->is.calls, p->is.keys * (i + 1) / p->is.calls, err);
        *disturbed += count_disturbed(p, o, m, l);
    }
    free(o);
    free(m);
    free(l);
    return code;
}

/* ---- the answer ---- */

/* o [dim] and log2-sum-exp2 of one row. */
static double dense_row(const struct problem *p, int64_t row, double *o)
{
    const int64_t dim = p->is.dim, head = row / p->rows;
    const struct attend_span span = p->spans[row % p->rows / p->is.group];
    double sum = 0, high = -INFINITY;
    memset(o, 0, (size_t)dim * sizeof *o);
    for (int64_t j = span.first; j < span.end; j++) {
        const int64_t at = (head * p->key_rows + row_of_key(p, j)) * dim;
        double score = p->bias[j];
        for (int64_t d = 0; d < dim; d++)
            score += (double)bf16_to_f32(p->q[row * dim + d]) * bf16_to_f32(p->k[at + d]);
        const double reference = fmax(high, score), factor = exp2(high - reference);
        const double weight = exp2(score - reference);
        high = reference;
        sum = sum * factor + weight;
        for (int64_t d = 0; d < dim; d++)
            o[d] = o[d] * factor + weight * bf16_to_f32(p->v[at + d]);
    }
    for (int64_t d = 0; d < dim; d++)
        o[d] = sum > 0 ? o[d] / sum : 0;
    return high + log2(sum);
}

static void compare(const struct problem *p, struct attend_errors *out)
{
    double want[MAX_DIM];
    for (int64_t row = 0; row < KV_HEADS * p->rows; row++) {
        const double lse = dense_row(p, row, want), l = p->l[row];
        const bool blind = isinf(lse);
        out->lse = worse(out->lse, blind ? (isinf(p->m[row]) ? l : NAN) : fabs(p->m[row] + log2(l) - lse));
        for (int d = 0; d < p->is.dim; d++)
            out->o = worse(out->o, fabs(p->o[row * p->is.dim + d] / (blind ? 1 : l) - want[d]));
    }
}

int attend_case_run(const struct attend_cuda_kernel *kernel, const struct attend_case *one,
                    struct attend_errors *out, struct error *err)
{
    struct problem p = problem_make(one);
    *out = (struct attend_errors){0};
    int code = upload_all(&p, err);
    if (code == 0)
        code = attend_pieces(&p, kernel, &out->disturbed, err);
    if (code == 0)
        compare(&p, out);
    problem_free(&p);
    return code;
}
