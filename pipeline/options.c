#include "pipeline/options.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/words.h"
#include "pipeline/layers.h"

enum kind { KIND_FLAG, KIND_COUNT, KIND_REAL, KIND_STRING, KIND_CHOICE, KIND_LIST };

/* Commands as a set. */
enum {
    SUMMARIZE = 1 << COMMAND_SUMMARIZE,
    SCORE = 1 << COMMAND_SCORE,
    NEEDLE = 1 << COMMAND_NEEDLE,
    PLAN = 1 << COMMAND_PLAN,
    EXPORT = 1 << COMMAND_EXPORT,
    TOKENIZE = 1 << COMMAND_TOKENIZE,
    READS = SUMMARIZE | SCORE | PLAN, /* a corpus */
    RUNS = READS | NEEDLE,
};

struct option_row {
    const char *group; /* NULL: the same as the row above */
    const char *name;
    char letter;
    enum kind kind;
    int commands;
    bool shapes_results; /* two runs that differ in it may not share an output folder */
    size_t where;
    double least, most;
    const char *argument; /* its name in the help; of a choice: the words, by '|', in the order of the enum */
    const char *help;
};

#define FIELD(name) offsetof(struct options, name)

static const struct option_row rows[] = {
    {"Files", "model", 'm', KIND_STRING, RUNS | TOKENIZE, 0, FIELD(model), 0, 0, "FILE", "weights, a GGUF file"},
    {NULL, "output", 'o', KIND_STRING, (RUNS & ~PLAN) | EXPORT, 0, FIELD(output), 0, 0, "PATH",
     "folder of the results (export: a file; default stdout)"},
    {NULL, "include", 0, KIND_LIST, READS, 0, FIELD(include), 0, 0, "GLOB",
     "take only files like this (repeatable)"},
    {NULL, "exclude", 0, KIND_LIST, READS, 0, FIELD(exclude), 0, 0, "GLOB",
     "leave files like this out (repeatable)"},
    {NULL, "format", 0, KIND_CHOICE, EXPORT, 0, FIELD(format), 0, 0, "auto|jsonl|md|csv",
     "default: jsonl for summaries, csv for scores"},

    {"What is asked", "strategy", 0, KIND_CHOICE, READS, 1, FIELD(strategy), 0, 0, "auto|whole|map-reduce|refine",
     "how chunks become a summary (score: auto or whole)"},
    {NULL, "prompt", 0, KIND_STRING, SUMMARIZE | PLAN, 1, FIELD(prompt), 0, 0, "FILE",
     "instruction in place of the built-in one"},
    {NULL, "max-new", 0, KIND_COUNT, SUMMARIZE | PLAN, 1, FIELD(max_new), 1, 1e6, "TOKENS",
     "longest summary (default 200)"},
    {NULL, "truncate", 0, KIND_FLAG, READS, 1, FIELD(truncate), 0, 0, NULL,
     "cut documents beyond the context instead of chunking"},

    {"Trials", "haystack", 0, KIND_LIST, NEEDLE, 0, FIELD(haystack), 0, 0, "PATH",
     "text to hide things in, a file or folder (repeatable)"},
    {NULL, "tasks", 0, KIND_STRING, NEEDLE, 0, FIELD(tasks), 0, 0, "TASK,...",
     "niah (the default), passkey, niah_single_1 to _3, ..."},
    {NULL, "lengths", 0, KIND_STRING, NEEDLE, 0, FIELD(lengths), 0, 0, "TOKENS,...",
     "of prompt and answer, as 4096 or 4k (default: 1k, 2k, ...)"},
    {NULL, "depths", 0, KIND_STRING, NEEDLE, 0, FIELD(depths), 0, 0, "PERCENT,...",
     "of the needle (default 0,25,50,75,100)"},
    {NULL, "trials", 0, KIND_COUNT, NEEDLE, 0, FIELD(trials), 1, 1e6, "N", "of each cell (default 1)"},

    {"Context", "context", 0, KIND_COUNT, RUNS, 1, FIELD(context), 16, 1e12, "TOKENS",
     "in place of what the model's positions reach"},
    {NULL, "chunk", 0, KIND_COUNT, READS, 1, FIELD(chunk), 16, 1e12, "TOKENS", "most document tokens in a chunk"},
    {NULL, "overlap", 0, KIND_COUNT, READS, 1, FIELD(overlap), 0, 1e9, "TOKENS",
     "shared by neighbouring chunks (default 512)"},

    {NULL, "positions", 0, KIND_CHOICE, RUNS, 1, FIELD(positions), 0, 0,
     "auto|none|pi|ntk|dynamic|yarn|llama3|longrope",
     "reading beyond the trained length (default: the model's own)"},
    {NULL, "factor", 0, KIND_REAL, RUNS, 1, FIELD(factor), 1, 1e6, "F",
     "times the trained length (default: from --context)"},

    {"Memory", "policy", 0, KIND_STRING, RUNS, 1, FIELD(policy), 0, 0, "NAME[:KEY=N,...]",
     "what layers keep; longhaul help policies lists them"},
    {NULL, "layers", 0, KIND_STRING, RUNS, 1, FIELD(layers), 0, 0, "FILE|LINES",
     "a policy for each layer: \"0-11 window:window=512; 12 full\""},
    {NULL, "memory-budget", 0, KIND_STRING, RUNS, 1, FIELD(memory_budget), 0, 0, "TOKENS|N[KMG]iB",
     "most that a policy's memory holds; the oldest leaves"},
    {NULL, "against", 0, KIND_STRING, SCORE, 1, FIELD(against), 0, 0, "NAME[:KEY=N,...]",
     "a policy to compare with: what does --policy cost?"},

    {"Sampling", "temperature", 0, KIND_REAL, SUMMARIZE, 1, FIELD(temperature), 0, 100, "T",
     "0, the default, is greedy"},
    {NULL, "top-k", 0, KIND_COUNT, SUMMARIZE, 1, FIELD(top_k), 0, 1e9, "K", "0: all"},
    {NULL, "top-p", 0, KIND_REAL, SUMMARIZE, 1, FIELD(top_p), 0, 1, "P", "1: all"},
    {NULL, "min-p", 0, KIND_REAL, SUMMARIZE, 1, FIELD(min_p), 0, 1, "P", "0: all"},
    {NULL, "repeat-penalty", 0, KIND_REAL, SUMMARIZE, 1, FIELD(repeat_penalty), 0.01, 100, "X",
     "of tokens written before (default 1.1; 1: none)"},
    {NULL, "seed", 0, KIND_COUNT, SUMMARIZE | NEEDLE, 1, FIELD(seed), 0, 9e15, "N", "seed of the random numbers"},

    {"Machine", "ring", 0, KIND_COUNT, RUNS, 0, FIELD(ring), 1, 1e6, "RANKS",
     "ranks that share a chunk (default: the fewest that do)"},
    {NULL, "segment", 0, KIND_COUNT, RUNS, 0, FIELD(segment), 1, 1e9, "TOKENS",
     "carried through at a time (default 2048; GPUs: at most 16384)"},
    {NULL, "device", 0, KIND_CHOICE, RUNS, 0, FIELD(device), 0, 0, "auto|cpu|cuda",
     "what computes (default: cuda where there is one)"},
    {NULL, "dtype", 0, KIND_CHOICE, RUNS, 1, FIELD(dtype), 0, 0, "auto|f32|bf16",
     "arithmetic (default: the faster)"},
    {NULL, "ranks", 0, KIND_COUNT, PLAN, 0, FIELD(ranks), 1, 1e6, "N",
     "plan for so many (default: those it runs on)"},
    {NULL, "threads", 0, KIND_COUNT, RUNS, 0, FIELD(threads), 1, 4096, "N",
     "per rank (default: its share of cores)"},

    {"Running", "dry-run", 0, KIND_FLAG, SUMMARIZE | SCORE, 0, FIELD(dry_run), 0, 0, NULL,
     "show the plan of this command and stop"},
    {NULL, "retry-failed", 0, KIND_FLAG, SUMMARIZE | SCORE, 0, FIELD(retry_failed), 0, 0, NULL,
     "also take documents that failed before"},
    {NULL, "max-error-rate", 0, KIND_REAL, SUMMARIZE | SCORE, 0, FIELD(max_error_rate), 0, 1, "X",
     "give up when more than this share has failed (default 1)"},
    {NULL, "log-level", 0, KIND_STRING, RUNS, 0, FIELD(log_level), 0, 0, "LEVEL", "error, warn, info or debug"},
};
enum { N_ROWS = sizeof rows / sizeof *rows };

static const struct {
    const char *name, *operands, *purpose;
    int least, most; /* operands */
} commands[COMMAND_COUNT] = {
    [COMMAND_SUMMARIZE] = {"summarize", "CORPUS...", "summarise every document of a corpus", 1, INT32_MAX},
    [COMMAND_SCORE] = {"score", "FILE...", "log-probabilities of the documents' own tokens", 1, INT32_MAX},
    [COMMAND_NEEDLE] = {"needle", "", "how well facts hidden in long texts are found again", 0, 0},
    [COMMAND_PLAN] = {"plan", "CORPUS...", "documents, tokens, chunks, memory and time, without running", 1,
                      INT32_MAX},
    [COMMAND_EXPORT] = {"export", "OUT", "print the results of a run", 1, 1},
    [COMMAND_TOKENIZE] = {"tokenize", "FILE", "print the token ids of a file, one a line", 1, 1},
    [COMMAND_INSPECT] = {"inspect", "FILE.gguf", "print the metadata and tensors of a weights file", 1, 1},
    [COMMAND_HELP] = {"help", "[COMMAND]", "explain a command, or the policies (longhaul help policies)", 0, 1},
    [COMMAND_VERSION] = {"version", "", "print the version", 0, 0},
};

static void *field(struct options *options, const struct option_row *row)
{
    return (char *)options + row->where;
}

int64_t options_segment(const struct options *options)
{
    return options->segment ? options->segment : OPTIONS_SEGMENT;
}

static void options_defaults(struct options *options)
{
    *options = (struct options){
        .overlap = -1,
        .max_new = 200,
        .top_p = 1,
        .repeat_penalty = 1.1,
        .max_error_rate = 1,
        .log_level = "info",
        .trials = 1,
        .about = COMMAND_HELP,
    };
}

static int parse_number(const struct option_row *row, const char *text, double *out, struct error *err)
{
    char *end;
    errno = 0;
    *out = strtod(text, &end);
    if (end == text || *end != '\0' || errno != 0 || !isfinite(*out))
        return error_set(err, ERROR_USAGE, "--%s: \"%.60s\" is not a number", row->name, text);
    if (row->kind == KIND_COUNT && *out != floor(*out))
        return error_set(err, ERROR_USAGE, "--%s: \"%.60s\" is not a whole number", row->name, text);
    if (*out < row->least || *out > row->most)
        return error_set(err, ERROR_USAGE, "--%s: %.60s is not between %.15g and %.15g", row->name, text,
                         row->least, row->most);
    return 0;
}

static int list_add(struct string_list *list, const char *item, struct error *err)
{
    const char **items = realloc(list->items, (size_t)(list->count + 1) * sizeof *items);
    if (!items)
        return error_set(err, ERROR_RESOURCE, "no memory for the command line");
    list->items = items;
    list->items[list->count++] = item;
    return 0;
}

static int take(struct options *options, const struct option_row *row, const char *text, struct error *err)
{
    void *out = field(options, row);
    double number;
    switch (row->kind) {
    case KIND_FLAG:
        *(int64_t *)out = 1;
        return 0;
    case KIND_STRING:
        *(const char **)out = text;
        return 0;
    case KIND_LIST:
        return list_add(out, text, err);
    case KIND_CHOICE:
        *(int64_t *)out = words_find(row->argument, text, strlen(text));
        if (*(int64_t *)out < 0)
            return error_set(err, ERROR_USAGE, "--%s: \"%.60s\" is not one of %s", row->name, text, row->argument);
        return 0;
    case KIND_COUNT:
        if (parse_number(row, text, &number, err) != 0)
            return -1;
        *(int64_t *)out = (int64_t)number;
        return 0;
    case KIND_REAL:
        return parse_number(row, text, out, err);
    }
    return 0;
}

/* The table in getopt's form; the value of option i is 256 + i, which is no letter's. */
static void getopt_tables(enum command command, struct option longs[N_ROWS + 2], char letters[2 * N_ROWS + 4])
{
    size_t n = 0, l = 0;
    letters[l++] = ':'; /* report a missing argument as ':' */
    letters[l++] = 'h';
    for (int i = 0; i < N_ROWS; i++) {
        if (!(rows[i].commands & 1 << command))
            continue;
        longs[n++] = (struct option){rows[i].name, rows[i].kind == KIND_FLAG ? no_argument : required_argument,
                                     NULL, 256 + i};
        if (rows[i].letter) {
            letters[l++] = rows[i].letter;
            letters[l++] = ':';
        }
    }
    letters[l] = '\0';
    longs[n++] = (struct option){"help", no_argument, NULL, 'h'};
    longs[n] = (struct option){0};
}

static const struct option_row *row_of(int found)
{
    for (int i = 0; i < N_ROWS; i++)
        if (found == 256 + i || (rows[i].letter && found == rows[i].letter))
            return &rows[i];
    return NULL;
}

static int parse_options(struct options *options, int argc, char **argv, struct error *err)
{
    struct option longs[N_ROWS + 2];
    char letters[2 * N_ROWS + 4];
    getopt_tables(options->command, longs, letters);
    opterr = 0;
    optind = 0;
    for (;;) {
        int found = getopt_long(argc, argv, letters, longs, NULL);
        if (found == -1)
            break;
        if (found == 'h') {
            options->about = options->command;
            options->command = COMMAND_HELP;
            return 0;
        }
        const struct option_row *row = found == ':' ? row_of(optopt) : row_of(found);
        if (found == '?' || !row)
            return error_set(err, ERROR_USAGE, "%s does not know the option %.60s (longhaul help %s lists them)",
                             command_name(options->command), argv[optind - 1], command_name(options->command));
        if (found == ':' || (row->argument && !*optarg)) /* "" would name the root of the file system */
            return error_set(err, ERROR_USAGE, "--%s needs a value (%s)", row->name, row->argument);
        if (take(options, row, optarg, err) != 0)
            return -1;
    }
    options->operands = (const char *const *)argv + optind;
    options->n_operands = argc - optind;
    return 0;
}

static int find_command(struct options *options, const char *name, struct error *err)
{
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    if (strcmp(name, "--version") == 0)
        name = "version";
    for (int i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(name, commands[i].name) == 0) {
            options->command = (enum command)i;
            return 0;
        }
    return error_set(err, ERROR_USAGE, "\"%.60s\" is not a command (longhaul help lists them)", name);
}

static int check(const struct options *options, struct error *err)
{
    const char *name = command_name(options->command);
    if (options->n_operands < commands[options->command].least ||
        options->n_operands > commands[options->command].most)
        return error_set(err, ERROR_USAGE, "%s takes %s, not %d operands", name,
                         commands[options->command].operands, options->n_operands);
    if ((RUNS | TOKENIZE) & 1 << options->command && !options->model)
        return error_set(err, ERROR_USAGE, "%s needs a model: -m FILE.gguf", name);
    if ((SUMMARIZE | SCORE | NEEDLE) & 1 << options->command && !options->output && !options->dry_run)
        return error_set(err, ERROR_USAGE, "%s needs a folder for its results: -o OUT", name);
    if (options->command == COMMAND_SCORE && options->strategy > STRATEGY_WHOLE)
        return error_set(err, ERROR_USAGE,
                         "score reads a document whole or in chunks: --strategy is auto or whole");
    if (options->strategy == STRATEGY_WHOLE && options->chunk > 0)
        return error_set(err, ERROR_USAGE,
                         "--strategy whole takes a document as one chunk: --chunk cannot go with it");
    if (options->factor > 0 && options->positions <= POSITIONS_CHOICE_METHODS)
        return error_set(err, ERROR_USAGE, "--factor belongs to a method: --positions pi, ntk, dynamic, yarn, ...");
    if (options->chunk > 0 && options->overlap >= options->chunk / 2)
        return error_set(err, ERROR_USAGE, "--overlap %lld is not less than half of --chunk %lld",
                         (long long)options->overlap, (long long)options->chunk);
    return 0;
}

/* What help is about: everything, a command, or the policies. */
static int choose_topic(struct options *options, struct error *err)
{
    struct options about = {.command = HELP_POLICIES};
    if (options->n_operands == 0)
        return 0;
    if (strcmp(options->operands[0], "policies") != 0 && find_command(&about, options->operands[0], err) != 0)
        return -1;
    options->about = about.command;
    return 0;
}

int options_parse(struct options *options, int argc, char **argv, struct error *err)
{
    options_defaults(options);
    if (argc < 2)
        return error_set(err, ERROR_USAGE, "what to do? (longhaul help lists the commands)");
    if (find_command(options, argv[1], err) != 0 || parse_options(options, argc - 1, argv + 1, err) != 0) {
        options_free(options);
        return -1;
    }
    if (options->command == COMMAND_HELP)
        return choose_topic(options, err);
    if (check(options, err) != 0) {
        options_free(options);
        return -1;
    }
    return 0;
}

void options_free(struct options *options)
{
    free(options->include.items);
    free(options->exclude.items);
    free(options->haystack.items);
    options->include = options->exclude = options->haystack = (struct string_list){0};
}

const char *command_name(enum command command)
{
    return commands[command].name;
}

/* Columns of an option's name and argument; a line has 100. */
enum { HELP_LEFT = 36 };

static void help_program(FILE *out)
{
    fputs("longhaul reads whole documents through a language model and writes down what they say.\n\n"
          "Usage: longhaul COMMAND ...        (summarize, score and needle: also under mpirun or srun)\n\n",
          out);
    for (int i = 0; i < COMMAND_COUNT; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].purpose);
    fputs("\nlonghaul help COMMAND lists a command's options; man longhaul tells the whole story.\n", out);
}

void options_help(enum command command, FILE *out)
{
    if (command == COMMAND_HELP || command == HELP_POLICIES) {
        (command == COMMAND_HELP ? help_program : layers_help)(out);
        return;
    }
    const char *operands = commands[command].operands;
    fprintf(out, "Usage: longhaul %s%s%s [OPTION]...\n%s\n", commands[command].name, *operands ? " " : "", operands,
            commands[command].purpose);
    const char *group = NULL, *printed = NULL;
    for (int i = 0; i < N_ROWS; i++) {
        const struct option_row *row = &rows[i];
        group = row->group ? row->group : group;
        if (!(row->commands & 1 << command))
            continue;
        if (group != printed)
            fprintf(out, "\n%s\n", group);
        printed = group;
        char left[64];
        snprintf(left, sizeof left, "%c%c%s --%s%s%s", row->letter ? '-' : ' ', row->letter ? row->letter : ' ',
                 row->letter ? "," : " ", row->name, row->argument ? " " : "", row->argument ? row->argument : "");
        if (strlen(left) <= HELP_LEFT)
            fprintf(out, "  %-*s %s\n", HELP_LEFT, left, row->help);
        else
            fprintf(out, "  %s\n  %-*s %s\n", left, HELP_LEFT, "", row->help);
    }
}

/* A choice by its word. */
static bool add_choice(cJSON *json, const struct option_row *row, int64_t chosen)
{
    char name[32];
    words_copy(row->argument, chosen, name, sizeof name);
    return cJSON_AddStringToObject(json, row->name, name) != NULL;
}

static bool add_json(cJSON *json, const struct options *options, const struct option_row *row)
{
    const char *at = (const char *)options + row->where;
    int64_t integer;
    double real;
    const char *string;
    switch (row->kind) {
    case KIND_REAL:
        memcpy(&real, at, sizeof real);
        return cJSON_AddNumberToObject(json, row->name, real) != NULL;
    case KIND_STRING:
        memcpy(&string, at, sizeof string);
        return cJSON_AddStringToObject(json, row->name, string ? string : "") != NULL;
    case KIND_CHOICE:
        memcpy(&integer, at, sizeof integer);
        return add_choice(json, row, integer);
    default:
        memcpy(&integer, at, sizeof integer);
        return cJSON_AddNumberToObject(json, row->name, (double)integer) != NULL;
    }
}

char *options_json(const struct options *options, const char *positions)
{
    cJSON *json = cJSON_CreateObject();
    bool complete = json && cJSON_AddStringToObject(json, "command", command_name(options->command)) != NULL;
    for (int i = 0; i < N_ROWS && complete; i++)
        if (rows[i].shapes_results && rows[i].commands & 1 << options->command)
            complete = add_json(json, options, &rows[i]);
    complete = complete && cJSON_AddStringToObject(json, "positions in effect", positions) != NULL;
    char *text = complete ? cJSON_PrintUnformatted(json) : NULL;
    cJSON_Delete(json);
    return text;
}
