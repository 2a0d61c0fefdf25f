/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/utf8.h"
#include "io/document.h"

/* A literal that may hold NULs, and its length. */
#define BYTES(literal) literal, sizeof(literal) - 1

static char path[64];

static int make_file(void **state)
{
    (void)state;
    strcpy(path, "/tmp/longhaul-test-document-XXXXXX");
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static void write_file(const char *bytes, size_t length)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

/* The ledger covers the file and the text, without gap or overlap, and gives a reason where there must be one. */
static void assert_ledger_is_whole(const struct document_text *text)
{
    int64_t byte = 0, at = 0;
    for (int64_t i = 0; i < text->n_spans; i++) {
        const struct document_span *span = &text->spans[i];
        assert_int_equal(span->first_byte, byte);
        assert_int_equal(span->first_text, at);
        assert_true(span->end_byte > byte && span->end_text >= at);
        assert_true((span->use == DOCUMENT_USED) == (span->reason[0] == '\0'));
        byte = span->end_byte;
        at = span->end_text;
    }
    assert_int_equal(byte, text->source_bytes);
    assert_int_equal(at, text->length);
}

static void read_bytes(const char *bytes, size_t length, struct document_text *text)
{
    struct error err;
    write_file(bytes, length);
    assert_int_equal(document_read(path, text, &err), 0);
    assert_int_equal(text->source_bytes, length);
    assert_ledger_is_whole(text);
}

static void assert_text(const struct document_text *text, const char *want)
{
    assert_int_equal(text->length, strlen(want));
    assert_memory_equal(text->text, want, text->length);
}

static void a_plain_file_is_its_own_text(void **state)
{
    (void)state;
    struct document_text text;
    read_bytes(BYTES("na\xc3\xafve\r\nline\n"), &text);
    assert_text(&text, "na\xc3\xafve\r\nline\n");
    assert_int_equal(text.chars, 12);
    assert_int_equal(text.encoding, ENCODING_UTF8);
    assert_null(text.skipped);
    assert_int_equal(text.n_spans, 1);
    document_text_free(&text);
}

static void the_sha256_is_that_of_the_file(void **state)
{
    (void)state;
    struct document_text text;
    read_bytes(BYTES("\xef\xbb\xbf"
                     "abc"),
               &text);
    /* printf '\357\273\277abc' | sha256sum */
    assert_string_equal(text.sha256, "1c28dc3f1f804a1ad9c9b4b4cf5e2658d16ad4ed08e3020d04a8d2865018947c");
    document_text_free(&text);
}

static void one_byte_is_a_document(void **state)
{
    (void)state;
    struct document_text text;
    read_bytes(BYTES("x"), &text);
    assert_text(&text, "x");
    document_text_free(&text);
}

static void a_document_whose_text_is_let_go_keeps_the_rest(void **state)
{
    (void)state;
    struct document_text text;
    read_bytes(BYTES("\xef\xbb\xbfhello"), &text);
    document_text_release(&text);
    assert_text(&text, "");
    assert_null(text.owned);
    assert_int_equal(text.source_bytes, 8);
    assert_int_equal(text.chars, 5);
    assert_int_equal(text.n_spans, 2);
    document_text_free(&text);
}

static void only_bytes_without_text_are_refused_where_text_is_required(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
        int status;
    } cases[] = {{BYTES("a\0b"), -1}, {BYTES("ab"), 0}, {BYTES(""), 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct document_text text;
        struct error err = {0};
        read_bytes(cases[i].bytes, cases[i].length, &text);
        assert_int_equal(document_require_text(&text, "a.txt", &err), cases[i].status);
        assert_int_equal(err.code, cases[i].status == 0 ? ERROR_NONE : ERROR_INPUT);
        assert_string_equal(err.text, cases[i].status == 0 ? "" : "a.txt: not read: binary");
        document_text_free(&text);
    }
}

static void a_byte_order_mark_is_skipped_and_recorded(void **state)
{
    (void)state;
    struct document_text text;
    read_bytes(BYTES("\xef\xbb\xbfhello"), &text);
    assert_text(&text, "hello");
    assert_int_equal(text.n_spans, 2);
    assert_int_equal(text.spans[0].use, DOCUMENT_SKIPPED);
    assert_string_equal(text.spans[0].reason, "byte order mark");
    document_text_free(&text);
}

static void broken_bytes_are_dropped_and_recorded(void **state)
{
    (void)state;
    struct document_text text;
    read_bytes(BYTES("\xc3\xa9t\xc3\xa9 \xff\xfe fin"), &text);
    assert_text(&text, "\xc3\xa9t\xc3\xa9 \xef\xbf\xbd fin");
    assert_int_equal(text.n_spans, 3);
    assert_int_equal(text.spans[1].use, DOCUMENT_DROPPED);
    assert_int_equal(text.spans[1].first_byte, 6);
    assert_int_equal(text.spans[1].end_byte, 8);
    document_text_free(&text);
}

static void latin1_becomes_utf8(void **state)
{
    (void)state;
    struct document_text text;
    read_bytes(BYTES("un caf\xe9 noir"), &text);
    assert_text(&text, "un caf\xc3\xa9 noir");
    assert_int_equal(text.encoding, ENCODING_LATIN1);
    document_text_free(&text);
}

static void long_utf16_is_read_in_pieces(void **state)
{
    (void)state;
    /* The mark, then 700,000 times "a", e acute and U+1F600: 8 bytes in UTF-16, 7 in UTF-8. */
    size_t n = 700 * 1000, length = 2 + 8 * n;
    struct document_text text;
    char *bytes = malloc(length);
    memcpy(bytes, "\xff\xfe", 2);
    for (size_t i = 0; i < n; i++)
        memcpy(bytes + 2 + 8 * i, "a\0\xe9\0\x3d\xd8\x00\xde", 8);
    read_bytes(bytes, length, &text);
    assert_int_equal(text.length, 7 * n);
    assert_int_equal(text.chars, 3 * n);
    assert_true(text.n_spans > 3);
    for (size_t i = 0; i < n; i++)
        assert_memory_equal(text.text + 7 * i, "a\xc3\xa9\xf0\x9f\x98\x80", 7);
    document_text_free(&text);
    free(bytes);
}

static void an_empty_file_is_skipped_with_the_reason(void **state)
{
    (void)state;
    struct document_text text;
    read_bytes(BYTES(""), &text);
    assert_string_equal(text.skipped, "empty");
    document_text_free(&text);
    read_bytes(BYTES("\xef\xbb\xbf"), &text);
    assert_string_equal(text.skipped, "empty");
    assert_int_equal(text.n_spans, 1);
    document_text_free(&text);
}

static void a_binary_file_is_skipped_with_the_reason(void **state)
{
    (void)state;
    struct document_text text;
    read_bytes(BYTES("\x7f"
                     "ELF\0\0\0"),
               &text);
    assert_string_equal(text.skipped, "binary");
    assert_int_equal(text.length, 0);
    assert_int_equal(text.n_spans, 1);
    assert_int_equal(text.spans[0].use, DOCUMENT_SKIPPED);
    document_text_free(&text);
}

/* In KiB, the most there has been. */
static long peak_memory(void)
{
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return usage.ru_maxrss;
}

static void a_large_binary_file_is_not_held_in_memory(void **state)
{
    (void)state;
    struct document_text text;
    struct error err;
    char sha256[DIGEST_HEX_BYTES];
    const off_t length = (off_t)256 << 20;
    write_file(BYTES("\x7f"
                     "ELF"));
    assert_int_equal(truncate(path, length), 0);
    assert_int_equal(digest_file(path, sha256, &err), 0);
    const long before = peak_memory();
    assert_int_equal(document_read(path, &text, &err), 0);
    assert_true(peak_memory() - before < 64 << 10);
    assert_string_equal(text.skipped, "binary");
    assert_string_equal(text.sha256, sha256);
    assert_int_equal(text.source_bytes, length);
    assert_ledger_is_whole(&text);
    document_text_free(&text);
}

static void a_nul_far_inside_is_text(void **state)
{
    (void)state;
    struct document_text text;
    static char bytes[10000];
    memset(bytes, 'a', sizeof bytes);
    bytes[9000] = '\0';
    read_bytes(bytes, sizeof bytes, &text);
    assert_null(text.skipped);
    assert_int_equal(text.length, sizeof bytes);
    document_text_free(&text);
}

static void an_unknown_encoding_is_an_error_that_names_the_file(void **state)
{
    (void)state;
    struct document_text text;
    struct error err;
    write_file(BYTES("\xd6\xd0\xce\xc4\xb2\xe2\xca\xd4"));
    assert_int_equal(document_read(path, &text, &err), -1);
    assert_int_equal(err.code, ERROR_INPUT);
    assert_non_null(strstr(err.text, path));
    document_text_free(&text);
}

static void what_is_no_regular_file_is_refused_without_waiting(void **state)
{
    (void)state;
    struct document_text text;
    struct error err;
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(document_read(path, &text, &err), -1);
    assert_int_equal(err.code, ERROR_INPUT);
    document_text_free(&text);
    assert_int_equal(document_read("/nowhere/at/all", &text, &err), -1);
    assert_int_equal(err.code, ERROR_IO);
    document_text_free(&text);
    assert_int_equal(document_read("/tmp", &text, &err), -1);
    document_text_free(&text);
}

static void one_long_line_is_read_whole(void **state)
{
    (void)state;
    struct document_text text;
    size_t length = (size_t)48 << 20;
    char *bytes = malloc(length);
    memset(bytes, 'z', length);
    read_bytes(bytes, length, &text);
    assert_int_equal(text.chars, length);
    document_text_free(&text);
    free(bytes);
}

/* Bytes chosen so that every kind of place occurs: ASCII, whole characters, broken ones, NULs left out. */
static void the_ledger_of_any_bytes_is_whole(void **state)
{
    (void)state;
    static const char *const parts[] = {"a",    "\n",   "\xc3\xa9", "\xe4\xb8\xad", "\xf0\x9f\x98\x80",
                                        "\xff", "\xc3", "\x81"};
    unsigned int seed = 20240607;
    print_message("seed %u\n", seed);
    srand(seed);
    for (int round = 0; round < 300; round++) {
        char bytes[512];
        size_t length = 0;
        int n = 1 + rand() % 100;
        for (int i = 0; i < n; i++) {
            const char *part = parts[rand() % (round % 2 ? 5 : 8)];
            memcpy(bytes + length, part, strlen(part));
            length += strlen(part);
        }
        struct document_text text;
        struct error err;
        write_file(bytes, length);
        if (document_read(path, &text, &err) == 0) {
            assert_ledger_is_whole(&text);
            assert_int_equal(utf8_valid_prefix((struct text){text.text, text.length}), text.length);
        } else {
            assert_int_equal(err.code, ERROR_INPUT);
        }
        document_text_free(&text);
    }
}

static void formats_that_cannot_be_read_are_known_by_name(void **state)
{
    (void)state;
    assert_string_equal(document_unsupported("a/b.PDF"), "pdf");
    assert_string_equal(document_unsupported("x.tar.gz"), "gz");
    assert_null(document_unsupported("a.pdf/readme"));
    assert_null(document_unsupported("notes.md"));
    assert_null(document_unsupported("zip"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_plain_file_is_its_own_text, make_file, remove_file),
        cmocka_unit_test_setup_teardown(the_sha256_is_that_of_the_file, make_file, remove_file),
        cmocka_unit_test_setup_teardown(one_byte_is_a_document, make_file, remove_file),
        cmocka_unit_test_setup_teardown(a_document_whose_text_is_let_go_keeps_the_rest, make_file, remove_file),
        cmocka_unit_test_setup_teardown(only_bytes_without_text_are_refused_where_text_is_required, make_file,
                                        remove_file),
        cmocka_unit_test_setup_teardown(a_byte_order_mark_is_skipped_and_recorded, make_file, remove_file),
        cmocka_unit_test_setup_teardown(broken_bytes_are_dropped_and_recorded, make_file, remove_file),
        cmocka_unit_test_setup_teardown(latin1_becomes_utf8, make_file, remove_file),
        cmocka_unit_test_setup_teardown(long_utf16_is_read_in_pieces, make_file, remove_file),
        cmocka_unit_test_setup_teardown(an_empty_file_is_skipped_with_the_reason, make_file, remove_file),
        cmocka_unit_test_setup_teardown(a_binary_file_is_skipped_with_the_reason, make_file, remove_file),
        cmocka_unit_test_setup_teardown(a_large_binary_file_is_not_held_in_memory, make_file, remove_file),
        cmocka_unit_test_setup_teardown(a_nul_far_inside_is_text, make_file, remove_file),
        cmocka_unit_test_setup_teardown(an_unknown_encoding_is_an_error_that_names_the_file, make_file,
                                        remove_file),
        cmocka_unit_test_setup_teardown(what_is_no_regular_file_is_refused_without_waiting, make_file, remove_file),
        cmocka_unit_test_setup_teardown(one_long_line_is_read_whole, make_file, remove_file),
        cmocka_unit_test_setup_teardown(the_ledger_of_any_bytes_is_whole, make_file, remove_file),
        cmocka_unit_test(formats_that_cannot_be_read_are_known_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
