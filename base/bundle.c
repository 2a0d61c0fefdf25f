#include "base/bundle.h"

#include <string.h>

const struct value *bundle_value(const struct bundle *bundle, const char *key)
{
    for (int64_t i = 0; i < bundle->n_values; i++)
        if (strcmp(bundle->values[i].key, key) == 0)
            return &bundle->values[i];
    return NULL;
}

const struct tensor *bundle_tensor(const struct bundle *bundle, const char *name)
{
    for (int64_t i = 0; i < bundle->n_tensors; i++)
        if (strcmp(bundle->tensors[i].name, name) == 0)
            return &bundle->tensors[i];
    return NULL;
}

static int wrong_kind(const struct bundle *bundle, const char *key, const char *wanted, struct error *err)
{
    return error_set(err, ERROR_INPUT, "%s: the value of %s is not %s", bundle->path, key, wanted);
}

int bundle_int(const struct bundle *bundle, const char *key, int64_t fallback, int64_t *out, struct error *err)
{
    const struct value *value = bundle_value(bundle, key);
    if (value && value->kind != VALUE_INT && value->kind != VALUE_BOOL)
        return wrong_kind(bundle, key, "an integer", err);
    *out = value ? value->integer : fallback;
    return 0;
}

int bundle_real(const struct bundle *bundle, const char *key, double fallback, double *out, struct error *err)
{
    const struct value *value = bundle_value(bundle, key);
    if (value && value->kind != VALUE_FLOAT && value->kind != VALUE_INT)
        return wrong_kind(bundle, key, "a number", err);
    *out = !value ? fallback : value->kind == VALUE_INT ? (double)value->integer : value->real;
    return 0;
}

int bundle_string(const struct bundle *bundle, const char *key, struct text *out, struct error *err)
{
    const struct value *value = bundle_value(bundle, key);
    if (value && value->kind != VALUE_STRING)
        return wrong_kind(bundle, key, "a string", err);
    *out = value ? value->string : (struct text){NULL, 0};
    return 0;
}
