/* A bundle: named values and named tensors, as every weights file offers them, whatever its format.
 *
 * io/ fills one from a file and owns it; model/ reads it without knowing the format. Keys and tensor names
 * are those of GGUF ("llama.block_count", "blk.0.attn_q.weight"). Everything inside is borrowed from the
 * bundle and lives as long as it. Lookups are linear: they happen while loading only.
 */
#ifndef LONGHAUL_BASE_BUNDLE_H
#define LONGHAUL_BASE_BUNDLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/tensor.h"
#include "base/text.h"

enum value_kind {
    VALUE_INT,
    VALUE_FLOAT,
    VALUE_BOOL,
    VALUE_STRING,
    VALUE_INTS,
    VALUE_FLOATS,
    VALUE_BOOLS,
    VALUE_STRINGS
};

struct value {
    const char *key; /* terminated */
    enum value_kind kind;
    int64_t count; /* of an array; 1 otherwise */
    union {
        int64_t integer; /* VALUE_INT, VALUE_BOOL (0 or 1) */
        double real;
        struct text string;
        const int64_t *integers; /* VALUE_INTS, VALUE_BOOLS */
        const double *reals;
        const struct text *strings;
    };
};

struct bundle {
    const char *path;
    int64_t n_values;
    const struct value *values;
    int64_t n_tensors;
    const struct tensor *tensors;
};

/* The value or tensor of that name, or NULL. */
const struct value *bundle_value(const struct bundle *bundle, const char *key);
const struct tensor *bundle_tensor(const struct bundle *bundle, const char *name);

/* *out = the value under `key`; absent: `fallback`. Fails (ERROR_INPUT) when it is of another kind.
 * An integer is accepted where a real is asked for. */
int bundle_int(const struct bundle *bundle, const char *key, int64_t fallback, int64_t *out, struct error *err);
int bundle_real(const struct bundle *bundle, const char *key, double fallback, double *out, struct error *err);
/* absent: {NULL, 0} */
int bundle_string(const struct bundle *bundle, const char *key, struct text *out, struct error *err);

#endif
