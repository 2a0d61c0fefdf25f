#include "pipeline/needle_tasks.h"

#include <stdlib.h>
#include <string.h>

#include "base/fnv.h"
#include "base/num.h"
#include "pipeline/needle_draft.h"

static const struct needle_task_row {
    const char *name;
    int64_t max_new;
    bool has_depth, needs_text;
    int64_t least; /* the smallest size there is of it */
    int (*write)(struct draft *draft, struct error *err);
} rows[NEEDLE_TASKS] = {
    [NEEDLE_NIAH] = {"niah", 64, true, true, 1, draft_sandwich},
    [NEEDLE_PASSKEY] = {"passkey", 16, true, false, 1, draft_passkey},
    [NEEDLE_NIAH_SINGLE_1] = {"niah_single_1", 128, true, false, 1, draft_niah},
    [NEEDLE_NIAH_SINGLE_2] = {"niah_single_2", 128, true, true, 1, draft_niah},
    [NEEDLE_NIAH_SINGLE_3] = {"niah_single_3", 128, true, true, 1, draft_niah},
    [NEEDLE_NIAH_MULTIKEY_1] = {"niah_multikey_1", 128, true, true, 1, draft_niah},
    [NEEDLE_NIAH_MULTIKEY_2] = {"niah_multikey_2", 128, true, false, 1, draft_niah},
    [NEEDLE_NIAH_MULTIKEY_3] = {"niah_multikey_3", 128, true, false, 1, draft_niah},
    [NEEDLE_NIAH_MULTIVALUE] = {"niah_multivalue", 128, false, true, 1, draft_niah},
    [NEEDLE_NIAH_MULTIQUERY] = {"niah_multiquery", 128, false, true, 1, draft_niah},
    [NEEDLE_VT] = {"vt", 30, false, false, 5, draft_vt},
    [NEEDLE_CWE] = {"cwe", 120, false, false, 12, draft_cwe},
    [NEEDLE_FWE] = {"fwe", 50, false, false, 64, draft_fwe},
};

const char *needle_task_name(enum needle_task task)
{
    return rows[task].name;
}

int needle_task_find(const char *name, size_t length)
{
    for (int i = 0; i < NEEDLE_TASKS; i++)
        if (strlen(rows[i].name) == length && memcmp(rows[i].name, name, length) == 0)
            return i;
    return -1;
}

bool needle_task_has_depth(enum needle_task task)
{
    return rows[task].has_depth;
}

int64_t needle_task_max_new(enum needle_task task)
{
    return rows[task].max_new;
}

/* ---- material ---- */

struct needle_material *needle_material_create(const struct tokenizer *tokenizer, const struct haystack *text,
                                               uint64_t seed, struct error *err)
{
    struct needle_material *material = calloc(1, sizeof *material);
    if (!material) {
        error_set(err, ERROR_RESOURCE, "no memory for needles");
        return NULL;
    }
    material->tokenizer = tokenizer;
    material->format = chat_format_detect(tokenizer);
    material->text = text;
    material->seed = seed;
    if (!(material->noise = haystack_create(needle_noise, strlen(needle_noise), err)) ||
        (material->single_tokens = draft_cwe_single_tokens(material, err)) < 0) {
        needle_material_free(material);
        return NULL;
    }
    return material;
}

void needle_material_free(struct needle_material *material)
{
    if (!material)
        return;
    haystack_free(material->noise);
    free(material);
}

/* ---- trials ---- */

/* A hash of the numbers that name a trial. */
static uint64_t cell_seed(const struct needle_material *material, const struct needle_cell *cell)
{
    const uint64_t parts[] = {material->seed, (uint64_t)cell->task, (uint64_t)cell->length,
                              rows[cell->task].has_depth ? (uint64_t)cell->depth : 0, (uint64_t)cell->trial};
    return fnv_bytes(FNV_START, parts, sizeof parts); /* on x86-64, the lowest byte first */
}

/* The tokens of a whole prompt. */
static int encode(const struct needle_material *material, const struct draft *draft, size_t length,
                  struct needle_trial *trial, struct error *err)
{
    struct chat_turn turn = {.before = {trial->text, length}, .after = {"", 0}};
    struct chat_prompt chat;
    if (draft->system)
        turn.system = (struct text){draft->system, strlen(draft->system)};
    if (chat_prompt(material->tokenizer, material->format, &turn, &chat, err) != 0)
        return -1;
    int status = token_list_join(&chat.prefix, &chat.suffix, err);
    if (status == 0)
        status = tokenizer_continue(material->tokenizer, (struct text){trial->lead, strlen(trial->lead)},
                                    &chat.prefix, err);
    if (status == 0) {
        trial->tokens = chat.prefix.ids;
        trial->n_tokens = chat.prefix.count;
        chat.prefix.ids = NULL;
    }
    chat_prompt_free(&chat);
    return status;
}

/* The trial with a haystack of that size. */
static int write_trial(const struct needle_material *material, const struct needle_cell *cell, int64_t size,
                       struct needle_trial *out, struct error *err)
{
    struct draft draft = {.material = material, .cell = cell, .size = size, .random = cell_seed(material, cell)};
    size_t length = 0;
    *out = (struct needle_trial){0};
    if (!(draft.prompt = open_memstream(&out->text, &length)))
        return error_set(err, ERROR_RESOURCE, "no memory for a prompt");
    int status = rows[cell->task].write(&draft, err);
    if (fclose(draft.prompt) != 0 && status == 0)
        status = error_set(err, ERROR_RESOURCE, "no memory for a prompt of %lld tokens", (long long)cell->length);
    memcpy(out->lead, draft.lead, sizeof out->lead);
    memcpy(out->expected, draft.expected, sizeof out->expected);
    out->n_expected = draft.n_expected;
    if (status == 0)
        status = encode(material, &draft, length, out, err);
    if (status != 0)
        needle_trial_free(out);
    return status;
}

/* A size that was tried, and the tokens that it took. */
struct tried {
    int64_t size, tokens;
};

/* The next size to try between one that fits and one that does not (size 0: none is known); it is where tokens
 * would be in proportion, except that every fourth time the middle is taken, so that it ends soon in any case. */
static int64_t next_size(const struct tried *fits, const struct tried *exceeds, int64_t budget, int round)
{
    if (exceeds->size == 0) {
        const int64_t proportional = fits->size * (budget / fits->tokens);
        return i64_max(2 * fits->size, proportional);
    }
    const int64_t gap = exceeds->size - fits->size;
    const double share = (double)(budget - fits->tokens) / (double)i64_max(1, exceeds->tokens - fits->tokens);
    const int64_t step = round % 4 == 3 ? gap / 2 : (int64_t)(share * (double)gap);
    return fits->size + i64_min(i64_max(step, 1), gap - 1);
}

static int check_possible(const struct needle_material *material, const struct needle_cell *cell, struct error *err)
{
    if (rows[cell->task].needs_text && !material->text)
        return error_set(err, ERROR_USAGE, "%s hides its needles in a text, and none is given",
                         rows[cell->task].name);
    return 0;
}

/* The most items there can be. */
static int64_t most_of(const struct needle_material *material, const struct needle_cell *cell)
{
    return cell->task == NEEDLE_CWE ? draft_cwe_words(material, cell->length) : INT64_MAX / 4;
}

static int too_few_words(const struct needle_cell *cell, int64_t most, struct error *err)
{
    return error_set(err, ERROR_USAGE, "%s of %lld tokens needs more than the %lld different words there are",
                     rows[cell->task].name, (long long)cell->length, (long long)most);
}

/* The shortest trial, which has to fit. */
static int make_least(const struct needle_material *material, const struct needle_cell *cell,
                      struct needle_trial *out, struct error *err)
{
    const struct needle_task_row *row = &rows[cell->task];
    if (check_possible(material, cell, err) != 0 || write_trial(material, cell, row->least, out, err) != 0)
        return -1;
    const int64_t least = out->n_tokens + row->max_new;
    if (least <= cell->length)
        return 0;
    needle_trial_free(out);
    return error_set(err, ERROR_USAGE, "%s needs %lld tokens at least, answer included: %lld are too few",
                     row->name, (long long)least, (long long)cell->length);
}

int needle_trial_check(const struct needle_material *material, const struct needle_cell *cell, int64_t *least,
                       struct error *err)
{
    const int64_t max_new = rows[cell->task].max_new, most = most_of(material, cell);
    struct needle_trial trial;
    if (make_least(material, cell, &trial, err) != 0)
        return -1;
    *least = trial.n_tokens + max_new;
    needle_trial_free(&trial);
    if (most > cell->length) /* none takes less than a token */
        return 0;
    if (write_trial(material, cell, most, &trial, err) != 0)
        return -1;
    const int64_t tokens = trial.n_tokens;
    needle_trial_free(&trial);
    return tokens + max_new > cell->length ? 0 : too_few_words(cell, most, err);
}

int needle_trial_make(const struct needle_material *material, const struct needle_cell *cell,
                      struct needle_trial *out, struct error *err)
{
    const struct needle_task_row *row = &rows[cell->task];
    const int64_t budget = cell->length - row->max_new, most = most_of(material, cell);
    struct tried fits = {row->least, 0}, exceeds = {0, 0};
    if (make_least(material, cell, out, err) != 0)
        return -1;
    fits.tokens = out->n_tokens;
    for (int round = 0; exceeds.size != fits.size + 1; round++) {
        struct needle_trial other;
        const int64_t size = next_size(&fits, &exceeds, budget, round);
        if (size > most && fits.size == most)
            break;
        if (write_trial(material, cell, i64_min(size, most), &other, err) != 0) {
            needle_trial_free(out);
            return -1;
        }
        const struct tried tried = {i64_min(size, most), other.n_tokens};
        if (tried.tokens <= budget) {
            fits = tried;
            needle_trial_free(out);
            *out = other;
        } else {
            exceeds = tried;
            needle_trial_free(&other);
        }
    }
    if (fits.size < most)
        return 0;
    needle_trial_free(out);
    return too_few_words(cell, most, err);
}

void needle_trial_free(struct needle_trial *trial)
{
    free(trial->text);
    free(trial->tokens);
    *trial = (struct needle_trial){0};
}

double needle_score(const struct needle_trial *trial, const char *answer)
{
    int found = 0;
    for (int i = 0; i < trial->n_expected; i++)
        found += strcasestr(answer, trial->expected[i]) != NULL;
    return trial->n_expected ? (double)found / trial->n_expected : 0;
}
