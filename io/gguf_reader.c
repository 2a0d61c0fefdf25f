#include "io/gguf_reader.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_MAX_BYTES = 65535 };

int gguf_reader_fail(struct gguf_reader *reader, const char *format, ...)
{
    char reason[256];
    va_list args;
    va_start(args, format);
    vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    if (reader->subject)
        return error_set(reader->err, ERROR_INPUT, "%.160s: byte %zu: %.64s: %s", reader->path, reader->at,
                         reader->subject, reason);
    return error_set(reader->err, ERROR_INPUT, "%.160s: byte %zu: %s", reader->path, reader->at, reason);
}

static size_t left(const struct gguf_reader *reader)
{
    return reader->size - reader->at;
}

/* The next `size` (at most 8) bytes, little-endian, whatever the machine. */
static int read_bits(struct gguf_reader *reader, const char *what, size_t size, uint64_t *out)
{
    *out = 0;
    if (left(reader) < size)
        return gguf_reader_fail(reader, "the file ends inside %s", what);
    for (size_t i = 0; i < size; i++)
        *out |= (uint64_t)reader->bytes[reader->at + i] << 8 * i;
    reader->at += size;
    return 0;
}

int gguf_reader_u32(struct gguf_reader *reader, const char *what, uint32_t *out)
{
    uint64_t bits;
    if (read_bits(reader, what, 4, &bits) != 0)
        return -1;
    *out = (uint32_t)bits;
    return 0;
}

int gguf_reader_u64(struct gguf_reader *reader, const char *what, uint64_t *out)
{
    return read_bits(reader, what, 8, out);
}

int gguf_reader_count(struct gguf_reader *reader, const char *what, size_t least, int64_t *out)
{
    uint64_t count;
    if (gguf_reader_u64(reader, what, &count) != 0)
        return -1;
    if (count > left(reader) / least) {
        reader->at -= 8;
        return gguf_reader_fail(reader, "%s is %llu, more than the rest of the file can hold", what,
                                (unsigned long long)count);
    }
    *out = (int64_t)count;
    return 0;
}

static int read_text(struct gguf_reader *reader, const char *what, struct text *out)
{
    int64_t length;
    if (gguf_reader_count(reader, what, 1, &length) != 0)
        return -1;
    *out = (struct text){(const char *)reader->bytes + reader->at, (size_t)length};
    reader->at += (size_t)length;
    return 0;
}

int gguf_reader_name(struct gguf_reader *reader, const char *what, const char **out)
{
    size_t start = reader->at;
    char label[64];
    struct text name;
    snprintf(label, sizeof label, "the length of %s", what);
    if (read_text(reader, label, &name) != 0)
        return -1;
    reader->at = start;
    if (name.length == 0 || name.length > NAME_MAX_BYTES)
        return gguf_reader_fail(reader, "%s has %zu bytes; 1 to %d are allowed", what, name.length, NAME_MAX_BYTES);
    for (size_t i = 0; i < name.length; i++)
        if (name.bytes[i] < 0x20 || name.bytes[i] > 0x7e)
            return gguf_reader_fail(reader, "%s has the byte 0x%02x, which is not printable ASCII", what,
                                    (unsigned char)name.bytes[i]);
    if (!(*out = arena_text(reader->arena, name.bytes, name.length, reader->err)))
        return -1;
    reader->at = start + 8 + name.length;
    return 0;
}

enum { TYPE_STRING = 8, TYPE_ARRAY = 9, TYPE_COUNT = 13 };

/* The value types by their number in the file. */
static const struct value_type {
    enum value_kind kind; /* of one; an array of them is kind + (VALUE_INTS - VALUE_INT) */
    int size;             /* bytes of one; of a string, its length alone */
    bool is_signed;
} value_types[TYPE_COUNT] = {
    [0] = {VALUE_INT, 1, false},  /* uint8 */
    [1] = {VALUE_INT, 1, true},   /* int8 */
    [2] = {VALUE_INT, 2, false},  /* uint16 */
    [3] = {VALUE_INT, 2, true},   /* int16 */
    [4] = {VALUE_INT, 4, false},  /* uint32 */
    [5] = {VALUE_INT, 4, true},   /* int32 */
    [6] = {VALUE_FLOAT, 4, true}, /* float32 */
    [7] = {VALUE_BOOL, 1, false}, /* bool */
    [TYPE_STRING] = {VALUE_STRING, 8, false},
    [10] = {VALUE_INT, 8, false},  /* uint64 */
    [11] = {VALUE_INT, 8, true},   /* int64 */
    [12] = {VALUE_FLOAT, 8, true}, /* float64 */
};

static int read_integer(struct gguf_reader *reader, const struct value_type *type, int64_t *out)
{
    uint64_t bits;
    if (read_bits(reader, "an integer", (size_t)type->size, &bits) != 0)
        return -1;
    int spare = 64 - 8 * type->size;
    bool bad = type->kind == VALUE_BOOL ? bits > 1 : !type->is_signed && bits > INT64_MAX;
    if (bad) {
        reader->at -= (size_t)type->size;
        return gguf_reader_fail(reader, "%llu is not %s", (unsigned long long)bits,
                                type->kind == VALUE_BOOL ? "a boolean, 0 or 1" : "below 2^63");
    }
    *out = type->is_signed ? (int64_t)(bits << spare) >> spare : (int64_t)bits;
    return 0;
}

static int read_real(struct gguf_reader *reader, const struct value_type *type, double *out)
{
    uint64_t bits;
    if (read_bits(reader, "a number", (size_t)type->size, &bits) != 0)
        return -1;
    if (type->size == 4) {
        uint32_t low = (uint32_t)bits;
        float single;
        memcpy(&single, &low, sizeof single);
        *out = single;
    } else {
        memcpy(out, &bits, sizeof *out);
    }
    return 0;
}

static int read_scalar(struct gguf_reader *reader, const struct value_type *type, struct value *out)
{
    out->kind = type->kind;
    out->count = 1;
    if (type->kind == VALUE_STRING)
        return read_text(reader, "the length of a string", &out->string);
    if (type->kind == VALUE_FLOAT)
        return read_real(reader, type, &out->real);
    return read_integer(reader, type, &out->integer);
}

static int read_type(struct gguf_reader *reader, const char *what, uint32_t *out)
{
    if (gguf_reader_u32(reader, what, out) != 0)
        return -1;
    if (*out < TYPE_COUNT)
        return 0;
    reader->at -= 4;
    return gguf_reader_fail(reader, "%s is %u, which GGUF does not know", what, *out);
}

static int read_texts(struct gguf_reader *reader, struct value *out)
{
    struct text *strings = arena_take(reader->arena, (size_t)out->count, sizeof *strings, reader->err);
    if (!strings)
        return -1;
    out->strings = strings;
    for (int64_t i = 0; i < out->count; i++)
        if (read_text(reader, "the length of a string", &strings[i]) != 0)
            return -1;
    return 0;
}

static int read_reals(struct gguf_reader *reader, const struct value_type *type, struct value *out)
{
    double *reals = arena_take(reader->arena, (size_t)out->count, sizeof *reals, reader->err);
    if (!reals)
        return -1;
    out->reals = reals;
    for (int64_t i = 0; i < out->count; i++)
        if (read_real(reader, type, &reals[i]) != 0)
            return -1;
    return 0;
}

static int read_integers(struct gguf_reader *reader, const struct value_type *type, struct value *out)
{
    int64_t *integers = arena_take(reader->arena, (size_t)out->count, sizeof *integers, reader->err);
    if (!integers)
        return -1;
    out->integers = integers;
    for (int64_t i = 0; i < out->count; i++)
        if (read_integer(reader, type, &integers[i]) != 0)
            return -1;
    return 0;
}

static int read_array(struct gguf_reader *reader, struct value *out)
{
    uint32_t number;
    if (read_type(reader, "the type of array elements", &number) != 0)
        return -1;
    if (number == TYPE_ARRAY) {
        reader->at -= 4;
        return gguf_reader_fail(reader, "an array of arrays; longhaul reads none");
    }
    const struct value_type *type = &value_types[number];
    if (gguf_reader_count(reader, "the length of an array", (size_t)type->size, &out->count) != 0)
        return -1;
    out->kind = type->kind + (VALUE_INTS - VALUE_INT);
    if (type->kind == VALUE_STRING)
        return read_texts(reader, out);
    if (type->kind == VALUE_FLOAT)
        return read_reals(reader, type, out);
    return read_integers(reader, type, out);
}

int gguf_reader_value(struct gguf_reader *reader, struct value *out)
{
    uint32_t type;
    reader->subject = NULL;
    if (gguf_reader_name(reader, "a key", &out->key) != 0)
        return -1;
    reader->subject = out->key;
    if (read_type(reader, "the type of a value", &type) != 0)
        return -1;
    return type == TYPE_ARRAY ? read_array(reader, out) : read_scalar(reader, &value_types[type], out);
}
