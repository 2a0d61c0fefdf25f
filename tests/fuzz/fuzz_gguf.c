/* libFuzzer target: the GGUF reader on any bytes, and every byte that a caller may then reach. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* One byte at either end: touching all of a tensor would make large files slow and find nothing more. */
static uint64_t touch(const void *bytes, size_t length)
{
    const uint8_t *at = bytes;
    return length ? (uint64_t)at[0] + at[length - 1] : 0;
}

static uint64_t touch_value(const struct value *value)
{
    uint64_t sum = strlen(value->key);
    if (value->kind == VALUE_STRING)
        return sum + touch(value->string.bytes, value->string.length);
    if (value->kind < VALUE_INTS)
        return sum + (uint64_t)value->integer;
    for (int64_t i = 0; i < value->count; i++) {
        if (value->kind == VALUE_STRINGS)
            sum += touch(value->strings[i].bytes, value->strings[i].length);
        else if (value->kind == VALUE_FLOATS)
            sum += value->reals[i] > 0;
        else
            sum += (uint64_t)value->integers[i];
    }
    return sum;
}

static uint64_t touch_tensor(const struct tensor *tensor)
{
    if (tensor->bytes != (size_t)tensor_rows(tensor) * tensor_row_bytes(tensor->type, tensor->dims[0]))
        abort();
    return strlen(tensor->name) + touch(tensor->data, tensor->bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    char path[64];
    struct error err;
    int fd = memfd_create("fuzz", 0);
    if (fd < 0 || write(fd, bytes, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct gguf *gguf = gguf_open(path, &err);
    close(fd);
    if (!gguf)
        return err.code == ERROR_INPUT ? 0 : (abort(), 0);
    const struct bundle *bundle = gguf_bundle(gguf);
    volatile uint64_t sink = 0;
    for (int64_t i = 0; i < bundle->n_values; i++)
        sink = sink + touch_value(&bundle->values[i]);
    for (int64_t i = 0; i < bundle->n_tensors; i++)
        sink = sink + touch_tensor(&bundle->tensors[i]);
    gguf_free(gguf);
    return 0;
}
