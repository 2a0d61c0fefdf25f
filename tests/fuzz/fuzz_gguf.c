/* libFuzzer target: the GGUF reader on any bytes, and every byte that a caller may then reach.
 *
 * io/gguf.c is compiled to call exact_mmap and exact_munmap below: a mapping ends with its page, but a heap block
 * with its last byte, and the address sanitizer sees the first byte read behind it.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
void *exact_mmap(void *where, size_t size, int protection, int flags, int fd, off_t offset);
int exact_munmap(void *map, size_t size);

void *exact_mmap(void *where, size_t size, int protection, int flags, int fd, off_t offset)
{
    uint8_t *copy = malloc(size);
    (void)where, (void)protection, (void)flags;
    if (!copy || pread(fd, copy, size, offset) != (ssize_t)size)
        abort();
    return copy;
}

int exact_munmap(void *map, size_t size)
{
    (void)size;
    free(map);
    return 0;
}

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
    if (!gguf && err.code != ERROR_INPUT)
        abort(); /* bad bytes are no failure of the system */
    if (!gguf)
        return 0;
    const struct bundle *bundle = gguf_bundle(gguf);
    volatile uint64_t sink = 0;
    for (int64_t i = 0; i < bundle->n_values; i++)
        sink = sink + touch_value(&bundle->values[i]);
    for (int64_t i = 0; i < bundle->n_tensors; i++)
        sink = sink + touch_tensor(&bundle->tensors[i]);
    gguf_free(gguf);
    return 0;
}
