#include "io/gguf.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/num.h"
#include "io/gguf_reader.h"

enum {
    DEFAULT_ALIGNMENT = 32,
    LEAST_ALIGNMENT = 8,
    /* The fewest bytes of a key with its value, and of the record of a tensor. */
    LEAST_VALUE_BYTES = 8 + 1 + 4 + 1,
    LEAST_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8,
};

struct gguf {
    void *map; /* NULL: not mapped */
    size_t size;
    struct arena arena;
    struct bundle bundle;
    struct value *values;
    struct tensor *tensors;
};

enum { NOT_SUPPORTED = -1 };

/* Tensor types by their number in the file. */
static const struct {
    const char *name; /* NULL: no such type, or one long gone */
    int type;         /* enum tensor_type, or NOT_SUPPORTED */
} file_types[] = {
    [0] = {"F32", TENSOR_F32},        [1] = {"F16", TENSOR_F16},         [2] = {"Q4_0", TENSOR_Q4_0},
    [3] = {"Q4_1", TENSOR_Q4_1},      [6] = {"Q5_0", TENSOR_Q5_0},       [7] = {"Q5_1", TENSOR_Q5_1},
    [8] = {"Q8_0", TENSOR_Q8_0},      [9] = {"Q8_1", NOT_SUPPORTED},     [10] = {"Q2_K", TENSOR_Q2_K},
    [11] = {"Q3_K", TENSOR_Q3_K},     [12] = {"Q4_K", TENSOR_Q4_K},      [13] = {"Q5_K", TENSOR_Q5_K},
    [14] = {"Q6_K", TENSOR_Q6_K},     [15] = {"Q8_K", NOT_SUPPORTED},    [16] = {"IQ2_XXS", NOT_SUPPORTED},
    [17] = {"IQ2_XS", NOT_SUPPORTED}, [18] = {"IQ3_XXS", NOT_SUPPORTED}, [19] = {"IQ1_S", NOT_SUPPORTED},
    [20] = {"IQ4_NL", NOT_SUPPORTED}, [21] = {"IQ3_S", NOT_SUPPORTED},   [22] = {"IQ2_S", NOT_SUPPORTED},
    [23] = {"IQ4_XS", NOT_SUPPORTED}, [24] = {"I8", NOT_SUPPORTED},      [25] = {"I16", NOT_SUPPORTED},
    [26] = {"I32", NOT_SUPPORTED},    [27] = {"I64", NOT_SUPPORTED},     [28] = {"F64", NOT_SUPPORTED},
    [29] = {"IQ1_M", NOT_SUPPORTED},  [30] = {"BF16", TENSOR_BF16},      [34] = {"TQ1_0", NOT_SUPPORTED},
    [35] = {"TQ2_0", NOT_SUPPORTED},  [39] = {"MXFP4", NOT_SUPPORTED},
};

/* Where a tensor's bytes are, counted from the start of the weights; and where its record is, for messages. */
struct place {
    const struct tensor *tensor;
    uint64_t offset;
    size_t record;
};

static int read_header(struct gguf_reader *reader, struct bundle *bundle)
{
    uint32_t magic, version;
    if (gguf_reader_u32(reader, "the magic number", &magic) != 0)
        return -1;
    reader->at = 0;
    if (magic != 0x46554747u) /* "GGUF" */
        return gguf_reader_fail(reader, "not a GGUF file: it does not begin with \"GGUF\"");
    reader->at = 4;
    if (gguf_reader_u32(reader, "the version", &version) != 0)
        return -1;
    if (version != 2 && version != 3) {
        reader->at = 4;
        uint32_t swapped = __builtin_bswap32(version);
        if (swapped >= 1 && swapped <= 3)
            return gguf_reader_fail(reader, "a big-endian GGUF file; only little-endian ones can be read");
        return gguf_reader_fail(reader, "GGUF version %u; only versions 2 and 3 can be read", version);
    }
    if (gguf_reader_count(reader, "the number of tensors", LEAST_TENSOR_BYTES, &bundle->n_tensors) != 0)
        return -1;
    return gguf_reader_count(reader, "the number of keys", LEAST_VALUE_BYTES, &bundle->n_values);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* names is sorted here. */
static int check_unique(struct gguf_reader *reader, const char *what, const char **names, int64_t n)
{
    qsort(names, (size_t)n, sizeof *names, compare_names);
    for (int64_t i = 1; i < n; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            return gguf_reader_fail(reader, "%s \"%.64s\" is there twice", what, names[i]);
    return 0;
}

static int read_values(struct gguf_reader *reader, struct gguf *gguf)
{
    size_t n = (size_t)gguf->bundle.n_values;
    const char **keys = arena_take(&gguf->arena, n, sizeof *keys, reader->err);
    gguf->values = arena_take(&gguf->arena, n, sizeof *gguf->values, reader->err);
    if (!keys || !gguf->values)
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (gguf_reader_value(reader, &gguf->values[i]) != 0)
            return -1;
        keys[i] = gguf->values[i].key;
    }
    reader->subject = NULL;
    return check_unique(reader, "the key", keys, gguf->bundle.n_values);
}

static int read_dims(struct gguf_reader *reader, struct tensor *tensor, int64_t *elements)
{
    uint32_t n_dims;
    if (gguf_reader_u32(reader, "the number of dimensions", &n_dims) != 0)
        return -1;
    if (n_dims < 1 || n_dims > TENSOR_MAX_DIMS)
        return gguf_reader_fail(reader, "%u dimensions; 1 to %d are allowed", n_dims, TENSOR_MAX_DIMS);
    tensor->n_dims = (int)n_dims;
    *elements = 1;
    for (int i = 0; i < TENSOR_MAX_DIMS; i++) {
        uint64_t dim = 1;
        if (i < tensor->n_dims && gguf_reader_u64(reader, "a dimension", &dim) != 0)
            return -1;
        if (dim == 0 || dim > INT64_MAX || __builtin_mul_overflow(*elements, (int64_t)dim, elements))
            return gguf_reader_fail(reader, "dimension %d is %llu: zero, or too many elements", i,
                                    (unsigned long long)dim);
        tensor->dims[i] = (int64_t)dim;
    }
    return 0;
}

static int read_tensor_type(struct gguf_reader *reader, enum tensor_type *out)
{
    uint32_t number;
    if (gguf_reader_u32(reader, "the type of a tensor", &number) != 0)
        return -1;
    if (number >= sizeof file_types / sizeof *file_types || !file_types[number].name)
        return gguf_reader_fail(reader, "tensor type %u is unknown", number);
    if (file_types[number].type == NOT_SUPPORTED)
        return gguf_reader_fail(reader, "tensor type %s is not supported", file_types[number].name);
    *out = (enum tensor_type)file_types[number].type;
    return 0;
}

/* dims, type and size of one tensor, from its record */
static int read_shape(struct gguf_reader *reader, struct tensor *tensor)
{
    int64_t elements = 0;
    if (read_dims(reader, tensor, &elements) != 0 || read_tensor_type(reader, &tensor->type) != 0)
        return -1;
    int block = tensor_block_elements(tensor->type);
    if (tensor->dims[0] % block != 0)
        return gguf_reader_fail(reader, "rows of %lld elements are no whole number of %s blocks of %d",
                                (long long)tensor->dims[0], tensor_type_name(tensor->type), block);
    if (!size_mul((size_t)(elements / block), tensor_block_bytes(tensor->type), &tensor->bytes))
        return gguf_reader_fail(reader, "%lld elements are too many", (long long)elements);
    return 0;
}

static int read_tensor(struct gguf_reader *reader, struct tensor *tensor, struct place *place)
{
    *place = (struct place){.tensor = tensor, .record = reader->at};
    reader->subject = NULL;
    if (gguf_reader_name(reader, "the name of a tensor", &tensor->name) != 0)
        return -1;
    reader->subject = tensor->name;
    return read_shape(reader, tensor) != 0 || gguf_reader_u64(reader, "the offset of a tensor", &place->offset) != 0
               ? -1
               : 0;
}

static int read_alignment(struct gguf_reader *reader, const struct bundle *bundle, uint64_t *out)
{
    int64_t alignment;
    if (bundle_int(bundle, "general.alignment", DEFAULT_ALIGNMENT, &alignment, reader->err) != 0)
        return -1;
    if (alignment < LEAST_ALIGNMENT || alignment > UINT32_MAX || (alignment & (alignment - 1)) != 0)
        return gguf_reader_fail(reader, "general.alignment is %lld, not a power of two from %d on",
                                (long long)alignment, LEAST_ALIGNMENT);
    *out = (uint64_t)alignment;
    return 0;
}

/* One of several files that only together are a model lacks most of its tensors. */
static int check_whole(struct gguf_reader *reader, const struct bundle *bundle)
{
    int64_t parts;
    if (bundle_int(bundle, "split.count", 1, &parts, reader->err) != 0)
        return -1;
    if (parts > 1)
        return gguf_reader_fail(reader, "one of %lld parts of a split model: merge them into one file first",
                                (long long)parts);
    return 0;
}

static int compare_places(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* The data of each tensor is aligned, inside the file and its own. places is sorted here; the reader stands
 * at the end of the records. */
static int place_tensors(struct gguf_reader *reader, struct gguf *gguf, struct place *places, uint64_t alignment)
{
    size_t start, end = 0;
    if (!size_add(reader->at, alignment - 1, &start))
        return gguf_reader_fail(reader, "general.alignment is too large");
    start -= start % alignment;
    qsort(places, (size_t)gguf->bundle.n_tensors, sizeof *places, compare_places);
    for (int64_t i = 0; i < gguf->bundle.n_tensors; i++) {
        struct tensor *tensor = &gguf->tensors[places[i].tensor - gguf->tensors];
        uint64_t offset = places[i].offset;
        reader->at = places[i].record;
        reader->subject = tensor->name;
        if (offset % alignment != 0)
            return gguf_reader_fail(reader, "its offset %llu is not aligned to %llu bytes",
                                    (unsigned long long)offset, (unsigned long long)alignment);
        if (start > reader->size || offset > reader->size - start || tensor->bytes > reader->size - start - offset)
            return gguf_reader_fail(reader, "its %zu bytes at offset %llu end behind the end of the file",
                                    tensor->bytes, (unsigned long long)offset);
        if (offset < end)
            return gguf_reader_fail(reader, "its data begins inside that of another tensor, at offset %llu",
                                    (unsigned long long)offset);
        end = offset + tensor->bytes;
        tensor->data = reader->bytes + start + offset;
    }
    return 0;
}

static int read_tensors(struct gguf_reader *reader, struct gguf *gguf)
{
    size_t n = (size_t)gguf->bundle.n_tensors;
    uint64_t alignment = 0;
    const char **names = arena_take(&gguf->arena, n, sizeof *names, reader->err);
    struct place *places = arena_take(&gguf->arena, n, sizeof *places, reader->err);
    gguf->tensors = arena_take(&gguf->arena, n, sizeof *gguf->tensors, reader->err);
    if (!names || !places || !gguf->tensors)
        return -1;
    if (read_alignment(reader, &gguf->bundle, &alignment) != 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (read_tensor(reader, &gguf->tensors[i], &places[i]) != 0)
            return -1;
        names[i] = gguf->tensors[i].name;
    }
    reader->subject = NULL;
    if (check_unique(reader, "the tensor", names, gguf->bundle.n_tensors) != 0)
        return -1;
    return place_tensors(reader, gguf, places, alignment);
}

static int parse(struct gguf *gguf, struct error *err)
{
    struct gguf_reader reader = {
        .path = gguf->bundle.path, .bytes = gguf->map, .size = gguf->size, .arena = &gguf->arena, .err = err};
    if (read_header(&reader, &gguf->bundle) != 0 || read_values(&reader, gguf) != 0)
        return -1;
    gguf->bundle.values = gguf->values;
    if (check_whole(&reader, &gguf->bundle) != 0 || read_tensors(&reader, gguf) != 0)
        return -1;
    gguf->bundle.tensors = gguf->tensors;
    return 0;
}

static int map_file(struct gguf *gguf, int fd, struct error *err)
{
    const char *path = gguf->bundle.path;
    struct stat status;
    if (fstat(fd, &status) != 0)
        return error_errno(err, "%s: asking for its size", path);
    if (!S_ISREG(status.st_mode))
        return error_set(err, ERROR_INPUT, "%.400s: not a regular file", path);
    if (status.st_size == 0)
        return error_set(err, ERROR_INPUT, "%.400s: byte 0: the file is empty", path);
    gguf->size = (size_t)status.st_size;
    void *map = mmap(NULL, gguf->size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return error_errno(err, "%s: mapping its %zu bytes", path, gguf->size);
    gguf->map = map;
    return 0;
}

static int load(struct gguf *gguf, const char *path, struct error *err)
{
    if (!(gguf->bundle.path = arena_string(&gguf->arena, path, err)))
        return -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, "%s: opening it for reading", path);
    int status = map_file(gguf, fd, err);
    close(fd); /* the mapping stays; nothing was written that a failure could lose */
    if (status != 0)
        return -1;
    if (parse(gguf, err) == 0)
        return 0;
    return err->code == ERROR_RESOURCE ? error_wrap(err, "%s", path) : -1; /* the arena does not know it */
}

struct gguf *gguf_open(const char *path, struct error *err)
{
    struct gguf *gguf = calloc(1, sizeof *gguf);
    if (!gguf) {
        error_errno(err, "%s: memory to open it", path);
        return NULL;
    }
    if (load(gguf, path, err) != 0) {
        gguf_free(gguf);
        return NULL;
    }
    return gguf;
}

void gguf_free(struct gguf *gguf)
{
    if (!gguf)
        return;
    if (gguf->map)
        munmap(gguf->map, gguf->size);
    arena_free(&gguf->arena);
    free(gguf);
}

const struct bundle *gguf_bundle(const struct gguf *gguf)
{
    return &gguf->bundle;
}
