/* The forward pass of the tiny models (tests/reference/tiny_models.py): a token that is decoded gives what the same
 * token gives in a segment, which tests/reference holds against transformers.
 */
#include "tests/mpi/mpi_test.h"

#include <malloc.h>
#include <math.h>
#include <stdlib.h>

#include "attention/far_record.h"
#include "io/gguf.h"
#include "model/forward_state.h"
#include "tests/worse.h"

enum { TOKENS = 180, DECODED = 60, SEGMENT = 128, VOCABULARY = 384 };

/* ---- a model at work ------------------------------------------------------------------------------------ */

struct work {
    struct gguf *gguf;
    struct model *model;
    struct pool *pool;
    struct policy_spec *policies; /* the model's own */
    struct forward *forward;
    int64_t max_tokens;
};

/* What is not the model's own; NULL where it is. */
struct ways {
    const struct position_method *positions;
    const char *policy;
    int64_t max_tokens; /* 0: TOKENS */
};

static struct forward_options options_of(const struct work *w)
{
    return (struct forward_options){
        .model = w->model,
        .group = &world,
        .pool = w->pool,
        .device = device_cpu(),
        .kernel = attn_kernel_choose(DTYPE_F32, NULL, &err),
        .policies = w->policies,
        .scores = true,
        .segment = SEGMENT,
        .max_tokens = w->max_tokens,
        .max_generated = DECODED,
    };
}

/* The tiny model of that name. */
static struct work work_open(const char *name, const struct ways *ways)
{
    char path[512];
    struct work w = {0};
    snprintf(path, sizeof path, "%s/data/tiny/%s.gguf", TEST_DATA_DIR, name);
    assert_non_null(w.gguf = gguf_open(path, &err));
    assert_non_null(w.model = model_open(gguf_bundle(w.gguf), &err));
    assert_int_equal(w.model->shape.vocab, VOCABULARY);
    if (ways->positions)
        assert_int_equal(model_set_positions(w.model, ways->positions, TOKENS, &err), 0);
    assert_non_null(w.pool = pool_create(1, &err));
    assert_int_equal(model_pack(w.model,
                                &(struct model_pack_options){DTYPE_F32, true, w.pool, &world, device_cpu(),
                                                             MODEL_ROWS_NONE, false},
                                &err),
                     0);
    assert_non_null(w.policies = calloc((size_t)w.model->shape.layers, sizeof *w.policies));
    for (int layer = 0; layer < w.model->shape.layers; layer++)
        if (w.model->shape.window > 0 && model_layer_is_local(w.model, layer))
            w.policies[layer] = (struct policy_spec){.kind = POLICY_WINDOW, .window = w.model->shape.window};
    for (int layer = 0; layer < w.model->shape.layers && ways->policy; layer++)
        assert_int_equal(policy_parse(ways->policy, &w.policies[layer], &err), 0);
    w.max_tokens = ways->max_tokens ? ways->max_tokens : TOKENS;
    const struct forward_options options = options_of(&w);
    assert_non_null(w.forward = forward_create(&options, &err));
    return w;
}

static void work_close(struct work *w)
{
    forward_free(w->forward);
    free(w->policies);
    pool_free(w->pool);
    model_free(w->model);
    gguf_free(w->gguf);
}

/* What a forward pass of the tiny model would take under the policy. */
static size_t bytes_under(const char *policy, int64_t max_tokens)
{
    struct work w = work_open("llama-tied-f32", &(struct ways){.policy = policy, .max_tokens = max_tokens});
    const struct forward_options options = options_of(&w);
    struct forward_memory bytes;
    assert_int_equal(forward_bytes(&options, &bytes, &err), 0);
    assert_int_equal(bytes.device, 0);
    work_close(&w);
    return bytes.host;
}

/* Bytes of all that was allocated and is not free; 0 where a sanitizer has its own malloc. */
static size_t in_use(void)
{
    const struct mallinfo2 heap = mallinfo2();
    return heap.uordblks + heap.hblkhd;
}

/* Without the huge pages of the CPU's own, whose borders cost up to 2 MiB more. */
static void *plain_alloc(size_t bytes, const char *what, struct error *error)
{
    void *memory = NULL;
    (void)what, (void)error;
    assert_int_equal(posix_memalign(&memory, 64, bytes + 1), 0);
    return memset(memory, 0, bytes);
}

/* A forward pass of several threads takes what was planned for it, to some tables. */
static void check_plan(const char *name, const char *policy)
{
    enum { THREADS = 8 };
    struct work w = work_open(name, &(struct ways){.policy = policy});
    struct forward_options options = options_of(&w);
    struct forward_memory planned;
    struct device plain = *device_cpu();
    plain.alloc = plain.host_alloc = plain_alloc;
    options.device = &plain;
    assert_non_null(options.pool = pool_create(THREADS, &err));
    assert_int_equal(forward_bytes(&options, &planned, &err), 0);
    const size_t before = in_use();
    struct forward *forward = forward_create(&options, &err);
    assert_non_null(forward);
    const size_t taken = in_use() - before;
    print_message("%s, %s: %zu bytes planned, %zu taken\n", name, policy ? policy : "its own", planned.host, taken);
    const size_t beside = planned.host / 100 + (128 << 10);
    if (before > 0)
        assert_in_range(taken, planned.host - beside, planned.host + beside);
    forward_free(forward);
    pool_free(options.pool);
    work_close(&w);
}

static void carry(struct work *w, const int32_t *tokens, int n, int segment)
{
    for (int first = 0; first < n; first += segment)
        assert_int_equal(
            forward_segment(w->forward, tokens + first, n - first < segment ? n - first : segment, &err), 0);
}

static void fill_tokens(int32_t *tokens, int n)
{
    for (int i = 0; i < n; i++)
        tokens[i] = (int32_t)((uint32_t)(i + 1) * 2654435761U >> 16) % VOCABULARY;
}

static float largest_difference(const float *logits, const float *others)
{
    float worst = 0;
    for (int i = 0; i < VOCABULARY; i++)
        worst = (float)worse((double)worst, fabs((double)(logits[i] - others[i])));
    return worst;
}

static void assert_alike(const char *name, const float *logits, const float *others)
{
    const float worst = largest_difference(logits, others);
    print_message("%s: logits differ by %.1e at most\n", name, (double)worst);
    assert_true(worst < 1e-4F);
}

/* By far more than rounding. */
static void assert_unlike(const char *name, const float *logits, const float *others)
{
    const float worst = largest_difference(logits, others);
    print_message("%s: logits differ by %.1e\n", name, (double)worst);
    assert_true(worst > 1e-2F);
}

/* ---- the test ------------------------------------------------------------------------------------------- */

/* The last tokens once decoded, and once carried in segments of `segment`. */
static void check_decode(const char *name, const struct ways *ways, int segment)
{
    const int before = TOKENS - DECODED;
    struct work w = work_open(name, ways);
    int32_t tokens[TOKENS];
    static float decoded[VOCABULARY], carried[VOCABULARY];
    fill_tokens(tokens, TOKENS);
    carry(&w, tokens, before, SEGMENT);
    for (int i = before; i < TOKENS; i++)
        assert_int_equal(forward_step(w.forward, tokens[i], decoded, &err), 0);
    forward_reset(w.forward);
    carry(&w, tokens, before, SEGMENT);
    carry(&w, tokens + before, DECODED, segment);
    assert_int_equal(forward_next(w.forward, carried, &err), 0);
    assert_alike(name, decoded, carried);
    work_close(&w);
}

static void decoded_tokens_give_what_segments_give(const char *name)
{
    check_decode(name, &(struct ways){0}, SEGMENT);
}

static struct position_method method_of(enum position_kind kind)
{
    struct position_method method;
    position_method_defaults(&method, kind);
    method.factor = 4;
    method.trained = 100; /* passed within the first segment */
    return method;
}

/* Its temperature is in the queries and in the keys. */
static void yarn_decodes_what_it_prefills(void **state)
{
    (void)state;
    const struct position_method method = method_of(POSITION_YARN);
    const struct ways yarn = {.positions = &method};
    check_decode("llama-tied-f32", &yarn, SEGMENT);
    check_decode("qwen2-f16", &yarn, SEGMENT);
}

/* Both ways each token is read with the angles of its own length. */
static void a_dynamic_method_decodes_what_it_prefills_token_by_token(void **state)
{
    (void)state;
    const struct position_method method = method_of(POSITION_DYNAMIC);
    const struct ways dynamic = {.positions = &method};
    check_decode("llama-tied-f32", &dynamic, 1);
    check_decode("qwen2-f16", &dynamic, 1);
}

enum { SHORT = 64, SHORTS = (TOKENS + SHORT - 1) / SHORT };

/* The logits behind TOKENS tokens in segments of SHORT, the last `ones` of them decoded. */
static void read_text(const struct ways *ways, int ones, float *logits)
{
    struct work w = work_open("llama-tied-f32", ways);
    int32_t tokens[TOKENS];
    fill_tokens(tokens, TOKENS);
    carry(&w, tokens, TOKENS - ones, SHORT);
    for (int i = TOKENS - ones; i < TOKENS; i++)
        assert_int_equal(forward_step(w.forward, tokens[i], logits, &err), 0);
    if (ones == 0)
        assert_int_equal(forward_next(w.forward, logits, &err), 0);
    work_close(&w);
}

/* What method_of(POSITION_DYNAMIC) makes of a text of that length, as a rope that follows nothing. */
static struct rope *rope_at(const struct model *model, int length)
{
    struct rope_options options = model_rope_options(model, TOKENS);
    const struct position_method dynamic = method_of(POSITION_DYNAMIC);
    struct rope *rope;
    position_method_defaults(&options.method, POSITION_NTK);
    options.method.factor = fmax(1, dynamic.factor * length / (double)dynamic.trained - (dynamic.factor - 1));
    assert_non_null(rope = rope_create(&options, &err));
    return rope;
}

/* The same with each segment's length set by hand. */
static void read_text_by_hand(const char *policy, const int lengths[SHORTS], float *logits)
{
    struct work w = work_open("llama-tied-f32", &(struct ways){.policy = policy});
    int32_t tokens[TOKENS];
    fill_tokens(tokens, TOKENS);
    for (int i = 0; i < SHORTS; i++) {
        rope_free(w.forward->attention.rope);
        w.forward->attention.rope = rope_at(w.model, lengths[i]);
        carry(&w, tokens + i * SHORT, i == SHORTS - 1 ? TOKENS - i * SHORT : SHORT, SHORT);
    }
    assert_int_equal(forward_next(w.forward, logits, &err), 0);
    work_close(&w);
}

/* Each segment is read with the angles of its own end, or of what the policy reaches by then. */
static void check_dynamic(const char *policy, const int lengths[SHORTS])
{
    const struct position_method method = method_of(POSITION_DYNAMIC);
    static float dynamic[VOCABULARY], expected[VOCABULARY], frozen[VOCABULARY];
    read_text(&(struct ways){.policy = policy, .positions = &method}, 0, dynamic);
    read_text_by_hand(policy, lengths, expected);
    assert_alike(policy, dynamic, expected);
    for (int i = 0; i < SHORTS; i++) {
        read_text_by_hand(policy, (int[]){lengths[i], lengths[i], lengths[i]}, frozen);
        assert_unlike(policy, dynamic, frozen);
    }
}

static void a_dynamic_method_follows_the_end_of_the_segment_in_hand(void **state)
{
    (void)state;
    check_dynamic("full", (int[]){SHORT, 2 * SHORT, TOKENS});
    check_dynamic("sinks:window=120,sinks=4", (int[]){SHORT, 124, 124});
    check_dynamic("sinks:window=146,sinks=4", (int[]){SHORT, 2 * SHORT, 150});
}

/* The trained 100, which some policies just reach and others just do not: a place in the text that is beyond them
 * is not beyond them inside what is seen. */
static void a_dynamic_method_follows_the_positions_that_a_policy_reaches(void **state)
{
    static const struct {
        const char *policy;
        void (*compare)(const char *name, const float *logits, const float *others);
    } cases[] = {
        {"sinks:window=96,sinks=4", assert_alike},        {"sinks:window=97,sinks=4", assert_unlike},
        {"h2o:window=10,slots=26", assert_alike},         {"h2o:window=10,slots=27", assert_unlike},
        {"infllm:window=99,sinks=4,top=1", assert_alike}, {"infllm:window=100,sinks=4,top=1", assert_unlike}};
    const struct position_method method = method_of(POSITION_DYNAMIC);
    static float plain[VOCABULARY], dynamic[VOCABULARY];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int ones = 0; ones <= 5; ones += 5) {
            read_text(&(struct ways){.policy = cases[i].policy}, ones, plain);
            read_text(&(struct ways){.policy = cases[i].policy, .positions = &method}, ones, dynamic);
            cases[i].compare(cases[i].policy, plain, dynamic);
        }
}

/* A landmark comes before the token behind it in both. */
static void landmarks_are_carried_alike(void **state)
{
    (void)state;
    const struct ways landmarks = {.policy = "landmark:token=7,block=16,top=1000"};
    check_decode("llama-tied-f32", &landmarks, SEGMENT);
    check_decode("llama-tied-f32", &landmarks, 1);
    check_decode("qwen2-f16", &landmarks, 15);
}

/* Of whatever policy: no more can be seen than is there. */
static void a_window_beyond_the_text_takes_no_more_memory_than_the_text(void **state)
{
    (void)state;
    static const char *const policies[] = {"window",    "sinks",  "compressive", "h2o",
                                           "retrieval", "infllm", "memory"};
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
        char fitting[64], beyond[64];
        snprintf(fitting, sizeof fitting, "%s:window=%d", policies[i], TOKENS + 1);
        snprintf(beyond, sizeof beyond, "%s:window=1000000000", policies[i]);
        assert_int_equal(bytes_under(beyond, TOKENS), bytes_under(fitting, TOKENS));
        check_decode("llama-tied-f32", &(struct ways){.policy = beyond}, SEGMENT);
    }
}

/* But for a row more of the tables of positions every ROPE_LEAST tokens. */
static void bounds_that_are_reached_take_the_same_memory_for_any_text(void **state)
{
    enum { REACHED = 1000, ROWS = 9 * REACHED / ROPE_LEAST + 1 };
    static const char *const bounded[] = {"window:window=60",
                                          "sinks:window=60,sinks=4",
                                          "retrieval:window=60,sinks=4,top=2,memory=192",
                                          "memory:window=60,memory=100",
                                          "memory:window=60,memory=100,top=10",
                                          "compressive:window=60,slots=20,rate=4,form=mean",
                                          "compressive:window=60,slots=20,rate=4,form=used",
                                          "h2o:window=60,slots=60",
                                          "snapkv:window=70,slots=60",
                                          "infllm:window=60,sinks=4,top=1,memory=256",
                                          "landmark:token=7,block=16,top=2,memory=128"};
    (void)state;
    for (size_t i = 0; i < sizeof bounded / sizeof *bounded; i++)
        assert_in_range(bytes_under(bounded[i], 10 * REACHED) - bytes_under(bounded[i], REACHED), 0,
                        ROWS * ATTN_MAX_DIM * sizeof(float));
}

static void what_is_taken_was_planned(void **state)
{
    static const char *const policies[] = {NULL,
                                           "full",
                                           "window:window=60",
                                           "sinks:window=60",
                                           "compressive",
                                           "h2o",
                                           "snapkv",
                                           "memory:window=60,memory=100",
                                           "retrieval",
                                           "infllm:window=60,sinks=4,top=1"};
    (void)state;
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++)
        check_plan("llama-tied-f32", policies[i]);
    check_plan("gemma3-q8", NULL);
}

enum { NEXT = TOKENS - 10 };

/* Of the first NEXT tokens, where a text may have so many. */
static int64_t forgotten_within(const char *name, const char *policy, int64_t max_tokens)
{
    struct work w = work_open(name, &(struct ways){.policy = policy, .max_tokens = max_tokens});
    int32_t tokens[NEXT];
    for (int i = 0; i < NEXT; i++)
        tokens[i] = i % VOCABULARY;
    carry(&w, tokens, NEXT, SEGMENT);
    const int64_t forgotten = forward_forgotten(w.forward);
    forward_reset(w.forward);
    assert_int_equal(forward_forgotten(w.forward), 0);
    work_close(&w);
    return forgotten;
}

/* How long others may be changes nothing. */
static int64_t forgotten_of(const char *name, const char *policy)
{
    const int64_t forgotten = forgotten_within(name, policy, TOKENS);
    assert_int_equal(forgotten_within(name, policy, NEXT), forgotten);
    return forgotten;
}

/* The next token stands at NEXT; a full layer among others reaches everything. */
static void what_no_layer_reaches_is_counted(void **state)
{
    (void)state;
    assert_int_equal(forgotten_of("llama-tied-f32", NULL), 0);
    assert_int_equal(forgotten_of("gemma3-q8", NULL), 0);
    assert_int_equal(forgotten_of("llama-tied-f32", "window:window=1000"), 0);
    assert_int_equal(forgotten_of("llama-tied-f32", "window:window=20"), NEXT - 19);
    for (int more = -1; more <= 1; more++) {
        char policy[64];
        snprintf(policy, sizeof policy, "window:window=%d", NEXT + more);
        assert_int_equal(forgotten_of("llama-tied-f32", policy), more < 1 ? 1 - more : 0);
    }
    assert_int_equal(forgotten_of("llama-tied-f32", "sinks:window=20,sinks=4"), NEXT - 23);
    assert_int_equal(forgotten_of("llama-tied-f32", "retrieval:window=10,sinks=4,top=2"), 0);
    /* 118 tokens are before the last group and its window: the first 4, 3 blocks of 32, and 18 that stay near */
    assert_int_equal(forgotten_of("llama-tied-f32", "retrieval:window=10,sinks=4,top=2,memory=64"), FAR_BLOCK);
    assert_int_equal(forgotten_of("llama-tied-f32", "h2o:window=20,slots=30"), NEXT - 50);
    assert_int_equal(forgotten_of("llama-tied-f32", "snapkv:window=70,slots=30"), NEXT - 100);
    assert_int_equal(forgotten_of("llama-tied-f32", "memory:window=20,memory=30"), NEXT - 50);
    assert_int_equal(forgotten_of("llama-tied-f32", "landmark:token=7,block=16,memory=1000"), 0);
    /* of 181 places, landmarks counted, whole blocks of 16 leave until 32 are left: 144, and 9 are landmarks */
    assert_int_equal(forgotten_of("llama-tied-f32", "landmark:token=7,block=16,memory=32"), 135);
}

/* A query's own block stands behind one that is not there, so positions go beyond the text by a block. */
static void a_text_of_one_block_is_read_alike_where_longer_ones_may_come(void **state)
{
    enum { BLOCK = 640 };
    static int32_t tokens[BLOCK];
    static float logits[2][VOCABULARY];
    const int64_t most[] = {BLOCK, 4 * BLOCK};
    (void)state;
    fill_tokens(tokens, BLOCK);
    for (int i = 0; i < 2; i++) {
        struct work w = work_open("llama-tied-f32", &(struct ways){NULL, "landmark:token=7,block=640", most[i]});
        carry(&w, tokens, BLOCK, SEGMENT);
        assert_int_equal(forward_next(w.forward, logits[i], &err), 0);
        work_close(&w);
    }
    assert_alike("llama-tied-f32", logits[0], logits[1]);
}

static void llama_decodes_what_it_prefills(void **state)
{
    (void)state;
    decoded_tokens_give_what_segments_give("llama-tied-f32");
}

static void qwen2_decodes_what_it_prefills(void **state)
{
    (void)state;
    decoded_tokens_give_what_segments_give("qwen2-f16");
}

static void gemma3_decodes_what_it_prefills(void **state)
{
    (void)state;
    decoded_tokens_give_what_segments_give("gemma3-q8");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        mpi_unit_test(landmarks_are_carried_alike),
        mpi_unit_test(a_window_beyond_the_text_takes_no_more_memory_than_the_text),
        mpi_unit_test(what_is_taken_was_planned),
        mpi_unit_test(bounds_that_are_reached_take_the_same_memory_for_any_text),
        mpi_unit_test(what_no_layer_reaches_is_counted),
        mpi_unit_test(a_text_of_one_block_is_read_alike_where_longer_ones_may_come),
        mpi_unit_test(llama_decodes_what_it_prefills),
        mpi_unit_test(qwen2_decodes_what_it_prefills),
        mpi_unit_test(gemma3_decodes_what_it_prefills),
        mpi_unit_test(yarn_decodes_what_it_prefills),
        mpi_unit_test(a_dynamic_method_decodes_what_it_prefills_token_by_token),
        mpi_unit_test(a_dynamic_method_follows_the_end_of_the_segment_in_hand),
        mpi_unit_test(a_dynamic_method_follows_the_positions_that_a_policy_reaches),
    };
    return mpi_run_tests(tests);
}
