/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/gguf.h"
#include "model/chat.h"
#include "toy_tokenizer.h"

#define SMOLLM                                                                                                     \
    "{% if loop.first %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + role}}"
#define QWEN                                                                                                       \
    "{{- '<|im_start|>system\\n' }}{{- messages[0].content }}{{- 'You are Q.<|im_end|>' }}"                        \
    "{{- '<|im_start|>system\\nYou code.<|im_end|>\\n' }}"

static const char *const SPECIALS[] = {
    "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "[INST]",       "[/INST]",    "<start_of_turn>",     "<end_of_turn>",     "<bos>",
};
enum { N_SPECIALS = sizeof SPECIALS / sizeof SPECIALS[0] };

/* `chat_template` may be NULL. */
static struct tokenizer *make(const char *chat_template, bool add_bos)
{
    static struct toy toy;
    struct error err;
    toy_start(&toy, "gpt-2");
    for (int i = 0; i < N_SPECIALS; i++)
        toy_add_token(&toy, SPECIALS[i], 3);
    toy_finish(&toy);
    toy_set_int(&toy, "tokenizer.ggml.bos_token_id", 256 + N_SPECIALS - 1);
    toy_set_int(&toy, "tokenizer.ggml.add_bos_token", add_bos);
    if (chat_template)
        toy_set_string(&toy, "tokenizer.chat_template", chat_template);
    struct tokenizer *tokenizer = tokenizer_create(&toy.bundle, &err);
    if (!tokenizer)
        fail_msg("%s", err.text);
    return tokenizer;
}

/* Tokens as text, with the names of special tokens between braces. */
static const char *spell(const struct tokenizer *tokenizer, const struct token_list *list)
{
    static char out[1024];
    size_t n = 0;
    for (int64_t i = 0; i < list->count; i++) {
        struct text piece = tokenizer_piece(tokenizer, list->ids[i]);
        const char *name = list->ids[i] >= 256 ? SPECIALS[list->ids[i] - 256] : "";
        n += (size_t)snprintf(out + n, sizeof out - n, name[0] ? "{%.*s%s}" : "%.*s%s", (int)piece.length,
                              piece.bytes, name);
    }
    out[n] = '\0';
    return out;
}

/* What chat_prompt makes of a turn with this system text (NULL: none given). */
static void check(const char *chat_template, const char *system, const char *prefix, const char *suffix)
{
    struct error err;
    struct chat_prompt prompt;
    struct tokenizer *tokenizer = make(chat_template, false);
    struct chat_turn turn = {{system, system ? strlen(system) : 0}, {"Read:\n", 6}, {"\nSum up.", 8}};
    assert_int_equal(chat_prompt(tokenizer, chat_format_detect(tokenizer), &turn, &prompt, &err), 0);
    assert_string_equal(spell(tokenizer, &prompt.prefix), prefix);
    assert_string_equal(spell(tokenizer, &prompt.suffix), suffix);
    chat_prompt_free(&prompt);
    tokenizer_free(tokenizer);
}

#define CHATML_END "\nSum up.{<|im_end|>}\n{<|im_start|>}assistant\n"

static void chatml_has_the_templates_own_system_text(void **state)
{
    (void)state;
    check(SMOLLM, NULL, "{<|im_start|>}system\nYou help.{<|im_end|>}\n{<|im_start|>}user\nRead:\n", CHATML_END);
    check(QWEN, NULL, "{<|im_start|>}system\nYou code.{<|im_end|>}\n{<|im_start|>}user\nRead:\n", CHATML_END);
}

static void a_system_text_given_replaces_the_templates(void **state)
{
    (void)state;
    check(SMOLLM, "Be brief.", "{<|im_start|>}system\nBe brief.{<|im_end|>}\n{<|im_start|>}user\nRead:\n",
          CHATML_END);
    check(SMOLLM, "", "{<|im_start|>}user\nRead:\n", CHATML_END);
    check("{{ '<|im_start|>' + role }}", NULL, "{<|im_start|>}user\nRead:\n", CHATML_END);
}

static void llama3_mistral_and_gemma_are_written_their_way(void **state)
{
    (void)state;
    check(
        "<|start_header_id|>", "S",
        "{<|start_header_id|>}system{<|end_header_id|>}\n\nS{<|eot_id|>}{<|start_header_id|>}user{<|end_header_id|>"
        "}\n\nRead:\n",
        "\nSum up.{<|eot_id|>}{<|start_header_id|>}assistant{<|end_header_id|>}\n\n");
    check("[INST]", "S", "{[INST]}S\n\nRead:\n", "\nSum up.{[/INST]}");
    check("<start_of_turn>", "S", "{<start_of_turn>}user\nS\n\nRead:\n",
          "\nSum up.{<end_of_turn>}\n{<start_of_turn>}model\n");
}

static void llama2_and_the_first_mistral_have_marks_of_plain_text(void **state)
{
    (void)state;
    static struct toy toy;
    struct error err;
    toy_start(&toy, "gpt-2");
    toy_finish(&toy);
    toy_set_string(&toy, "tokenizer.chat_template", "{{ '[INST] ' + content + ' [/INST]' }}");
    struct tokenizer *tokenizer = tokenizer_create(&toy.bundle, &err);
    assert_non_null(tokenizer);
    assert_int_equal(chat_format_detect(tokenizer), CHAT_MISTRAL_V1);
    tokenizer_free(tokenizer);
    check("[INST] <<SYS>>", "S", "[INST] <<SYS>>\nS\n<</SYS>>\n\nRead:\n", "\nSum up. [/INST]");
}

static void without_a_template_the_prompt_is_plain_text(void **state)
{
    (void)state;
    check(NULL, NULL, "Read:\n", "\nSum up.");
    check("{{ something }}", "S", "S\n\nRead:\n", "\nSum up.");
}

static void marks_in_the_users_text_stay_text(void **state)
{
    (void)state;
    check(SMOLLM, "<|im_end|>", "{<|im_start|>}system\n<|im_end|>{<|im_end|>}\n{<|im_start|>}user\nRead:\n",
          CHATML_END);
}

static void a_model_that_wants_bos_gets_it_once_in_front(void **state)
{
    (void)state;
    struct error err;
    struct chat_prompt prompt;
    struct tokenizer *tokenizer = make(NULL, true);
    struct chat_turn turn = {.before = {"a", 1}, .after = {"b", 1}};
    assert_int_equal(chat_prompt(tokenizer, CHAT_PLAIN, &turn, &prompt, &err), 0);
    assert_string_equal(spell(tokenizer, &prompt.prefix), "{<bos>}a");
    assert_string_equal(spell(tokenizer, &prompt.suffix), "b");
    chat_prompt_free(&prompt);
    tokenizer_free(tokenizer);
}

static void a_vocabulary_without_the_marks_is_refused(void **state)
{
    (void)state;
    struct toy toy;
    struct error err;
    struct chat_prompt prompt;
    toy_start(&toy, "gpt-2");
    toy_finish(&toy);
    struct tokenizer *tokenizer = tokenizer_create(&toy.bundle, &err);
    assert_non_null(tokenizer);
    struct chat_turn turn = {.before = {"a", 1}};
    assert_int_equal(chat_prompt(tokenizer, CHAT_CHATML, &turn, &prompt, &err), -1);
    assert_int_equal(err.code, ERROR_INPUT);
    assert_non_null(strstr(err.text, "<|im_start|>"));
    tokenizer_free(tokenizer);
}

/* ---- a real model ---- */

/* The text of a field in hexadecimal; {NULL, 0} for "-". The caller frees it. */
static struct text unhex(const char *hex)
{
    size_t length = strspn(hex, "0123456789abcdef") / 2;
    if (hex[0] == '-')
        return (struct text){NULL, 0};
    char *bytes = malloc(length + 1);
    assert_non_null(bytes);
    for (size_t i = 0; i < length; i++)
        assert_int_equal(sscanf(hex + 2 * i, "%2hhx", (unsigned char *)&bytes[i]), 1);
    return (struct text){bytes, length};
}

/* A line of tests/reference/chat.py: ids, system, before, material, after. */
static void check_line(const struct tokenizer *tokenizer, char *line)
{
    enum { SYSTEM, BEFORE, MATERIAL, AFTER, FIELDS };
    struct text fields[FIELDS];
    struct error err;
    struct chat_prompt prompt;
    const char *next = line;
    for (int i = 0; i < FIELDS; i++) {
        next = strchr(next, '\t') + 1;
        fields[i] = unhex(next);
    }
    struct chat_turn turn = {fields[SYSTEM], fields[BEFORE], fields[AFTER]};
    assert_int_equal(chat_prompt(tokenizer, CHAT_GEMMA, &turn, &prompt, &err), 0);
    assert_int_equal(tokenizer_encode(tokenizer, fields[MATERIAL], &prompt.prefix, &err), 0);
    assert_int_equal(token_list_join(&prompt.prefix, &prompt.suffix, &err), 0);
    char *id = line;
    for (int64_t i = 0; i < prompt.prefix.count; i++)
        assert_int_equal(prompt.prefix.ids[i], strtol(id, &id, 10));
    assert_int_equal(*id, '\t'); /* none is left */
    chat_prompt_free(&prompt);
    for (int i = 0; i < FIELDS; i++)
        free((char *)fields[i].bytes);
}

static void gemma3s_prompts_are_those_of_its_template(void **state)
{
    (void)state;
    static const char model[] = TEST_DATA_DIR "/../models/gemma-3-270m-q4_k_m.gguf";
    char *line = NULL;
    size_t size = 0;
    struct error err;
    if (access(model, R_OK) != 0) {
        print_message("skipped: no %s\n", model);
        skip();
    }
    struct gguf *gguf = gguf_open(model, &err);
    assert_non_null(gguf);
    struct tokenizer *tokenizer = tokenizer_create(gguf_bundle(gguf), &err);
    assert_non_null(tokenizer);
    FILE *file = fopen(TEST_DATA_DIR "/data/tokens/gemma3_chat.txt", "r");
    assert_non_null(file);
    while (getline(&line, &size, file) > 0)
        check_line(tokenizer, line);
    free(line);
    fclose(file);
    tokenizer_free(tokenizer);
    gguf_free(gguf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chatml_has_the_templates_own_system_text),
        cmocka_unit_test(a_system_text_given_replaces_the_templates),
        cmocka_unit_test(llama3_mistral_and_gemma_are_written_their_way),
        cmocka_unit_test(llama2_and_the_first_mistral_have_marks_of_plain_text),
        cmocka_unit_test(without_a_template_the_prompt_is_plain_text),
        cmocka_unit_test(marks_in_the_users_text_stay_text),
        cmocka_unit_test(a_model_that_wants_bos_gets_it_once_in_front),
        cmocka_unit_test(a_vocabulary_without_the_marks_is_refused),
        cmocka_unit_test(gemma3s_prompts_are_those_of_its_template),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
