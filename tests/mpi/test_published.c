/* Policies against the published code, on 1 to 4 ranks: tests/data/policies holds what kvpress, attention-sinks and
 * compressive-transformer-pytorch made of the numbers of tests/mpi/dense.h (tests/reference/policies.py).
 */
#include "tests/mpi/bounded_bed.h"

#include <stdio.h>

enum { DIM = 16, HEADS = 4, KV_HEADS = 2, TOKENS = 200, AFTER = 6, MOST_ROWS = 256 };

/* What the file says: answers to the queries from `first` on. */
static struct {
    char policy[128];
    int64_t first, positions;
    double answers[MOST_ROWS][HEADS][DIM];
} published;

/* The number behind "name": in the file's first line. */
static int64_t number_of(const char *line, const char *name)
{
    char key[64];
    snprintf(key, sizeof key, "\"%s\": ", name);
    const char *found = strstr(line, key);
    if (!found)
        fail_msg("no %s in %s", key, line);
    return strtoll(found + strlen(key), NULL, 10);
}

/* weights: floats before the answers, or NULL. */
static void read_file(const char *name, float *weights, size_t n_weights)
{
    char path[512], line[1024];
    snprintf(path, sizeof path, "%s/data/policies/%s.ref", TEST_DATA_DIR, name);
    FILE *file = fopen(path, "rb");
    if (!file || !fgets(line, sizeof line, file))
        fail_msg("%s cannot be read", path);
    assert_int_equal(sscanf(line, "{\"policy\": \"%127[^\"]\"", published.policy), 1);
    published.first = number_of(line, "first");
    published.positions = number_of(line, "positions");
    assert_int_equal(number_of(line, "segment"), TOKENS);
    assert_int_equal(number_of(line, "dim"), DIM);
    assert_in_range(published.positions, 1, MOST_ROWS);
    assert_int_equal(fread(weights, sizeof *weights, n_weights, file), n_weights);
    const size_t rows = (size_t)published.positions;
    assert_int_equal(fread(published.answers, sizeof *published.answers, rows, file), rows);
    fclose(file);
}

static void define(const struct bed *bed, int64_t position, int head, double *out)
{
    const int64_t at = position - published.first;
    (void)bed;
    for (int e = 0; e < DIM; e++)
        out[e] = at >= 0 && at < published.positions ? published.answers[at][head][e] : BED_NOT_ASKED;
}

static void check(const struct convolutions *convolutions)
{
    struct bed bed = {.shape = {HEADS, KV_HEADS, DIM, DIM, 10000.0, DTYPE_F32, ROPE_HALVES, 0.9f, 0, 1e-5},
                      .segment = TOKENS,
                      .convolutions = convolutions,
                      .define = define};
    assert_int_equal(published.first + published.positions, TOKENS + AFTER);
    bed_check(&bed, published.policy, TOKENS);
}

static void sinks_are_those_of_streaming_llm(void **state)
{
    (void)state;
    read_file("sinks", NULL, 0);
    check(NULL);
}

static void heavy_hitters_are_those_of_observed_attention(void **state)
{
    (void)state;
    read_file("h2o", NULL, 0);
    check(NULL);
}

static void snapkv_keeps_what_snapkv_press_keeps(void **state)
{
    (void)state;
    read_file("snapkv", NULL, 0);
    check(NULL);
}

static void convolutions_are_those_of_conv_compress(void **state)
{
    enum { RATE = 3, WEIGHTS = DIM * RATE * DIM };
    static float weights[2][WEIGHTS + DIM];
    const struct convolutions convolutions = {{RATE, DIM, weights[0], weights[0] + WEIGHTS},
                                              {RATE, DIM, weights[1], weights[1] + WEIGHTS}};
    (void)state;
    read_file("compressive", weights[0], 2 * (WEIGHTS + DIM));
    check(&convolutions);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        mpi_unit_test(sinks_are_those_of_streaming_llm),
        mpi_unit_test(heavy_hitters_are_those_of_observed_attention),
        mpi_unit_test(snapkv_keeps_what_snapkv_press_keeps),
        mpi_unit_test(convolutions_are_those_of_conv_compress),
    };
    return mpi_run_tests(tests);
}
