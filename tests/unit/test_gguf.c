/* io/gguf.h: small files built byte by byte, sound ones and each way of being broken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/digest.h"
#include "io/gguf.h"

enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 };
enum { TYPE_F32 = 0, TYPE_Q4_0 = 2, TYPE_IQ2_XXS = 16 };

static char path[] = "/tmp/longhaul-test-gguf-XXXXXX";

static int make_file(void **state)
{
    (void)state;
    strcpy(path + strlen(path) - 6, "XXXXXX");
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

/* The file being built. */
static struct {
    uint8_t bytes[4096];
    size_t length;
} made;

static void put(const void *bytes, size_t length)
{
    assert_true(made.length + length <= sizeof made.bytes);
    memcpy(made.bytes + made.length, bytes, length);
    made.length += length;
}

static void put_number(uint64_t number, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        put(&(uint8_t){(uint8_t)(number >> 8 * i)}, 1);
}

static void put_text(const char *text)
{
    put_number(strlen(text), 8);
    put(text, strlen(text));
}

static void start(uint32_t version, uint64_t n_tensors, uint64_t n_values)
{
    made.length = 0;
    put("GGUF", 4);
    put_number(version, 4);
    put_number(n_tensors, 8);
    put_number(n_values, 8);
}

static void put_key(const char *key, uint32_t type)
{
    put_text(key);
    put_number(type, 4);
}

static void put_array(const char *key, uint32_t type, uint64_t count)
{
    put_key(key, ARRAY);
    put_number(type, 4);
    put_number(count, 8);
}

static void put_tensor(const char *name, const uint64_t dims[2], uint32_t type, uint64_t offset)
{
    put_text(name);
    put_number(2, 4);
    put_number(dims[0], 8);
    put_number(dims[1], 8);
    put_number(type, 4);
    put_number(offset, 8);
}

static void put_data(size_t bytes)
{
    while (made.length % 32 != 0)
        put("", 1);
    for (size_t i = 0; i < bytes; i++)
        put(&(uint8_t){(uint8_t)i}, 1);
}

/* Two values, two tensors of 64 and 36 bytes, and nothing wrong. */
static void make_sound(void)
{
    start(3, 2, 2);
    put_key("general.architecture", STRING);
    put_text("llama");
    put_array("list", U16, 3);
    put_number(0x000200010000, 6);
    put_tensor("a.weight", (const uint64_t[]){4, 4}, TYPE_F32, 0);
    put_tensor("b.weight", (const uint64_t[]){32, 2}, TYPE_Q4_0, 64);
    put_data(64 + 36);
}

static void write_file(size_t length)
{
    unlink(path); /* a file written anew, not over the old one, which some file systems flush to disk at once */
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(made.bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

static struct gguf *open_made(void)
{
    struct error err = {0};
    write_file(made.length);
    struct gguf *gguf = gguf_open(path, &err);
    if (!gguf)
        fail_msg("%s", err.text);
    return gguf;
}

/* The file is refused with its name, a byte and `reason`. */
static void assert_refused(const char *reason)
{
    struct error err = {0};
    write_file(made.length);
    struct gguf *gguf = gguf_open(path, &err);
    assert_null(gguf);
    assert_int_equal(err.code, ERROR_INPUT);
    if (!strstr(err.text, path) || !strstr(err.text, ": byte ") || !strstr(err.text, reason))
        fail_msg("expected \"%s\", the path and the byte in \"%s\"", reason, err.text);
}

static void a_sound_file_is_read(void **state)
{
    (void)state;
    make_sound();
    struct gguf *gguf = open_made();
    const struct bundle *bundle = gguf_bundle(gguf);
    assert_string_equal(bundle->path, path);
    assert_int_equal(bundle->n_values, 2);
    assert_true(text_equals(bundle_value(bundle, "general.architecture")->string, "llama"));
    const struct value *list = bundle_value(bundle, "list");
    assert_int_equal(list->kind, VALUE_INTS);
    assert_int_equal(list->count, 3);
    assert_int_equal(list->integers[2], 2);
    const struct tensor *b = bundle_tensor(bundle, "b.weight");
    assert_int_equal(b->type, TENSOR_Q4_0);
    assert_int_equal(b->n_dims, 2);
    assert_int_equal(b->dims[0], 32);
    assert_int_equal(b->dims[3], 1);
    assert_int_equal(b->bytes, 36);
    assert_memory_equal(b->data, made.bytes + made.length - 36, 36);
    gguf_free(gguf);
}

static void version_2_is_read_like_version_3(void **state)
{
    (void)state;
    make_sound();
    made.bytes[4] = 2;
    gguf_free(open_made());
}

static void a_file_without_tensors_is_read(void **state)
{
    (void)state;
    start(3, 0, 1);
    put_key("k", U8);
    put_number(7, 1);
    struct gguf *gguf = open_made();
    assert_int_equal(gguf_bundle(gguf)->n_tensors, 0);
    gguf_free(gguf);
}

static void every_number_keeps_its_value(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        int type;
        size_t bytes;
        uint64_t bits;
        int64_t expected;
    } integers[] = {
        {"u8", U8, 1, 0xff, 255},
        {"i8", I8, 1, 0xff, -1},
        {"u16", U16, 2, 0xffff, 65535},
        {"i16", I16, 2, 0x8000, -32768},
        {"u32", U32, 4, 0xffffffff, 0xffffffff},
        {"i32", I32, 4, 0x80000000, INT32_MIN},
        {"u64", U64, 8, INT64_MAX, INT64_MAX},
        {"i64", I64, 8, 1ull << 63, INT64_MIN},
    };
    const size_t n = sizeof integers / sizeof *integers;
    start(3, 0, n);
    for (size_t i = 0; i < n; i++) {
        put_key(integers[i].key, (uint32_t)integers[i].type);
        put_number(integers[i].bits, integers[i].bytes);
    }
    struct gguf *gguf = open_made();
    for (size_t i = 0; i < n; i++) {
        const struct value *value = bundle_value(gguf_bundle(gguf), integers[i].key);
        assert_int_equal(value->kind, VALUE_INT);
        assert_true(value->integer == integers[i].expected);
    }
    gguf_free(gguf);
}

static void reals_booleans_and_their_arrays_are_read(void **state)
{
    (void)state;
    start(3, 0, 5);
    put_key("f32", F32);
    put_number(0x3fc00000, 4);
    put_key("f64", F64);
    put_number(0xc004000000000000, 8);
    put_key("yes", BOOL);
    put_number(1, 1);
    put_array("reals", F32, 2);
    put_number(0x3fc00000bf800000, 8);
    put_array("words", STRING, 2);
    put_text("one");
    put_text("");
    struct gguf *gguf = open_made();
    const struct bundle *bundle = gguf_bundle(gguf);
    assert_true(bundle_value(bundle, "f32")->real == 1.5);
    assert_true(bundle_value(bundle, "f64")->real == -2.5);
    assert_int_equal(bundle_value(bundle, "yes")->kind, VALUE_BOOL);
    assert_int_equal(bundle_value(bundle, "yes")->integer, 1);
    assert_true(bundle_value(bundle, "reals")->reals[0] == -1.0);
    assert_true(bundle_value(bundle, "reals")->reals[1] == 1.5);
    assert_int_equal(bundle_value(bundle, "words")->kind, VALUE_STRINGS);
    assert_true(text_equals(bundle_value(bundle, "words")->strings[0], "one"));
    assert_int_equal(bundle_value(bundle, "words")->strings[1].length, 0);
    gguf_free(gguf);
}

static void a_file_cut_at_any_byte_is_refused(void **state)
{
    (void)state;
    make_sound();
    for (size_t length = 0; length < made.length; length++) {
        struct error err = {0};
        write_file(length);
        struct gguf *gguf = gguf_open(path, &err);
        assert_null(gguf);
        assert_int_equal(err.code, ERROR_INPUT);
        assert_non_null(strstr(err.text, "byte"));
    }
}

/* No crash and no leak, whatever is answered (for the sanitizers). */
static void any_flipped_bit_does_no_harm(void **state)
{
    (void)state;
    make_sound();
    for (size_t bit = 0; bit < 8 * made.length; bit++) {
        struct error err;
        made.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        write_file(made.length);
        gguf_free(gguf_open(path, &err));
        made.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void bad_magic_is_refused(void **state)
{
    (void)state;
    make_sound();
    made.bytes[3] = 'f';
    assert_refused("not a GGUF file");
}

static void unknown_versions_are_refused(void **state)
{
    (void)state;
    static const uint32_t versions[] = {0, 1, 4, 0xffffffff};
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        start(versions[i], 0, 0);
        assert_refused("only versions 2 and 3");
    }
}

static void a_big_endian_file_is_named_as_such(void **state)
{
    (void)state;
    start(0x03000000, 0, 0);
    assert_refused("big-endian");
}

static void huge_counts_are_refused(void **state)
{
    (void)state;
    start(3, UINT64_MAX, 0);
    assert_refused("number of tensors");
    start(3, 0, UINT64_MAX);
    assert_refused("number of keys");
    start(3, 0, 1);
    put_array("list", STRING, UINT64_MAX);
    assert_refused("list: the length of an array");
    start(3, 0, 1);
    put_array("list", U64, 1ull << 61); /* times 8 bytes is 2^64 */
    assert_refused("list: the length of an array");
}

static void lengths_past_the_end_are_refused(void **state)
{
    (void)state;
    start(3, 0, 1);
    put_number(UINT64_MAX, 8);
    put("0123456789", 10);
    assert_refused("the length of a key");
    start(3, 0, 1);
    put_key("name", STRING);
    put_number(11, 8);
    put("0123456789", 10);
    assert_refused("name: the length of a string");
}

static void empty_keys_and_keys_with_odd_bytes_are_refused(void **state)
{
    (void)state;
    start(3, 0, 1);
    put_key("", U64);
    put_number(0, 8);
    assert_refused("a key has 0 bytes");
    start(3, 0, 1);
    put_number(3, 8);
    put("a\0b", 3);
    put_number(U64, 4);
    put_number(0, 8);
    assert_refused("0x00");
}

static void duplicate_keys_are_refused(void **state)
{
    (void)state;
    start(3, 0, 3);
    for (int i = 0; i < 3; i++) {
        put_key(i == 1 ? "other" : "same", U8);
        put_number(0, 1);
    }
    assert_refused("\"same\" is there twice");
}

static void unknown_value_types_are_refused(void **state)
{
    (void)state;
    start(3, 0, 1);
    put_key("odd", 13);
    put_number(0, 8);
    assert_refused("odd: the type of a value is 13");
    start(3, 0, 1);
    put_array("odd", 0xffffffff, 0);
    assert_refused("odd: the type of array elements");
}

static void arrays_of_arrays_are_refused(void **state)
{
    (void)state;
    start(3, 0, 1);
    put_array("deep", ARRAY, 1);
    assert_refused("deep: an array of arrays");
}

static void values_that_fit_no_kind_are_refused(void **state)
{
    (void)state;
    start(3, 0, 1);
    put_key("big", U64);
    put_number(1ull << 63, 8);
    assert_refused("big: 9223372036854775808 is not below 2^63");
    start(3, 0, 1);
    put_key("maybe", BOOL);
    put_number(2, 1);
    put_number(0, 8);
    assert_refused("maybe: 2 is not a boolean");
}

static void make_with_alignment(uint32_t alignment)
{
    start(3, 1, 1);
    put_key("general.alignment", U32);
    put_number(alignment, 4);
    put_tensor("a", (const uint64_t[]){4, 4}, TYPE_F32, 0);
    while (made.length < 1024)
        put("", 1);
}

static void alignment_is_a_power_of_two(void **state)
{
    (void)state;
    static const uint32_t bad[] = {0, 1, 4, 7, 24, 0xffffffff};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        make_with_alignment(bad[i]);
        assert_refused("general.alignment");
    }
    make_with_alignment(256);
    struct gguf *gguf = open_made();
    assert_int_equal((uintptr_t)gguf_bundle(gguf)->tensors[0].data % 256, 0);
    gguf_free(gguf);
    make_with_alignment(0x80000000);
    assert_refused("end behind the end of the file");
}

/* One tensor record, then 64 bytes of data. */
static void make_one_tensor(const uint64_t dims[2], uint32_t type, uint64_t offset)
{
    start(3, 1, 0);
    put_tensor("t", dims, type, offset);
    put_data(64);
}

static void the_number_of_dimensions_has_a_limit(void **state)
{
    (void)state;
    static const uint32_t bad[] = {0, 5, 0xffffffff};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        start(3, 1, 0);
        put_text("t");
        put_number(bad[i], 4);
        put_data(64);
        assert_refused("t: ");
    }
}

static void zero_and_overflowing_dimensions_are_refused(void **state)
{
    (void)state;
    make_one_tensor((const uint64_t[]){0, 4}, TYPE_F32, 0);
    assert_refused("t: dimension 0 is 0");
    make_one_tensor((const uint64_t[]){UINT64_MAX, 1}, TYPE_F32, 0);
    assert_refused("t: dimension 0");
    make_one_tensor((const uint64_t[]){1ull << 32, 1ull << 32}, TYPE_F32, 0);
    assert_refused("t: dimension 1");
    make_one_tensor((const uint64_t[]){1ull << 31, 1ull << 31}, TYPE_F32, 0); /* times 4 bytes is 2^64 */
    assert_refused("t: 4611686018427387904 elements are too many");
}

static void rows_hold_whole_blocks(void **state)
{
    (void)state;
    make_one_tensor((const uint64_t[]){16, 2}, TYPE_Q4_0, 0);
    assert_refused("t: rows of 16 elements are no whole number of Q4_0 blocks of 32");
}

static void tensor_types_are_known_and_named(void **state)
{
    (void)state;
    make_one_tensor((const uint64_t[]){32, 1}, TYPE_IQ2_XXS, 0);
    assert_refused("t: tensor type IQ2_XXS is not supported");
    make_one_tensor((const uint64_t[]){32, 1}, 4, 0); /* Q4_2, long gone */
    assert_refused("t: tensor type 4 is unknown");
    make_one_tensor((const uint64_t[]){32, 1}, 0xffffffff, 0);
    assert_refused("t: tensor type 4294967295 is unknown");
}

static void offsets_are_aligned_and_inside_the_file(void **state)
{
    (void)state;
    make_one_tensor((const uint64_t[]){4, 1}, TYPE_F32, 4);
    assert_refused("t: its offset 4 is not aligned");
    make_one_tensor((const uint64_t[]){4, 4}, TYPE_F32, 32);
    assert_refused("t: its 64 bytes at offset 32 end behind");
    make_one_tensor((const uint64_t[]){4, 4}, TYPE_F32, UINT64_MAX - 31); /* offset + size overflows */
    assert_refused("t: its 64 bytes");
    make_one_tensor((const uint64_t[]){1ull << 30, 1ull << 31}, TYPE_F32, 0);
    assert_refused("t: its 9223372036854775808 bytes");
}

static void make_two_tensors(const char *first, const char *second, uint64_t second_offset)
{
    start(3, 2, 0);
    put_tensor(first, (const uint64_t[]){4, 4}, TYPE_F32, 0);
    put_tensor(second, (const uint64_t[]){4, 4}, TYPE_F32, second_offset);
    put_data(128);
}

static void overlapping_tensors_are_refused(void **state)
{
    (void)state;
    make_two_tensors("a", "b", 32);
    assert_refused("b: its data begins inside that of another tensor");
    make_two_tensors("a", "b", 0);
    assert_refused("inside that of another tensor");
}

static void duplicate_tensor_names_are_refused(void **state)
{
    (void)state;
    make_two_tensors("a", "a", 64);
    assert_refused("the tensor \"a\" is there twice");
}

static void one_part_of_a_split_model_is_refused(void **state)
{
    (void)state;
    start(3, 0, 1);
    put_key("split.count", U16);
    put_number(4, 2);
    assert_refused("one of 4 parts");
}

static void what_is_no_file_is_refused(void **state)
{
    (void)state;
    struct error err = {0};
    assert_null(gguf_open("/tmp", &err));
    assert_int_equal(err.code, ERROR_INPUT);
    assert_null(gguf_open("/nonexistent/model.gguf", &err));
    assert_int_equal(err.code, ERROR_IO);
    assert_non_null(strstr(err.text, "/nonexistent/model.gguf"));
    gguf_free(NULL);
}

static void the_digest_of_a_file_is_that_of_its_bytes(void **state)
{
    (void)state;
    struct error err;
    char of_file[DIGEST_HEX_BYTES], of_bytes[DIGEST_HEX_BYTES];
    made.length = 0;
    put("abc", 3);
    write_file(3);
    assert_int_equal(digest_file(path, of_file, &err), 0);
    assert_string_equal(of_file, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"); /* FIPS 180 */
    assert_int_equal(digest_bytes("abc", 3, of_bytes, &err), 0);
    assert_string_equal(of_file, of_bytes);
    assert_int_equal(digest_file("/nonexistent", of_file, &err), -1);
    assert_int_equal(err.code, ERROR_IO);
    assert_non_null(strstr(err.text, "/nonexistent"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_file_is_read),
        cmocka_unit_test(version_2_is_read_like_version_3),
        cmocka_unit_test(a_file_without_tensors_is_read),
        cmocka_unit_test(every_number_keeps_its_value),
        cmocka_unit_test(reals_booleans_and_their_arrays_are_read),
        cmocka_unit_test(a_file_cut_at_any_byte_is_refused),
        cmocka_unit_test(any_flipped_bit_does_no_harm),
        cmocka_unit_test(bad_magic_is_refused),
        cmocka_unit_test(unknown_versions_are_refused),
        cmocka_unit_test(a_big_endian_file_is_named_as_such),
        cmocka_unit_test(huge_counts_are_refused),
        cmocka_unit_test(lengths_past_the_end_are_refused),
        cmocka_unit_test(empty_keys_and_keys_with_odd_bytes_are_refused),
        cmocka_unit_test(duplicate_keys_are_refused),
        cmocka_unit_test(unknown_value_types_are_refused),
        cmocka_unit_test(arrays_of_arrays_are_refused),
        cmocka_unit_test(values_that_fit_no_kind_are_refused),
        cmocka_unit_test(alignment_is_a_power_of_two),
        cmocka_unit_test(the_number_of_dimensions_has_a_limit),
        cmocka_unit_test(zero_and_overflowing_dimensions_are_refused),
        cmocka_unit_test(rows_hold_whole_blocks),
        cmocka_unit_test(tensor_types_are_known_and_named),
        cmocka_unit_test(offsets_are_aligned_and_inside_the_file),
        cmocka_unit_test(overlapping_tensors_are_refused),
        cmocka_unit_test(duplicate_tensor_names_are_refused),
        cmocka_unit_test(one_part_of_a_split_model_is_refused),
        cmocka_unit_test(what_is_no_file_is_refused),
        cmocka_unit_test(the_digest_of_a_file_is_that_of_its_bytes),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
