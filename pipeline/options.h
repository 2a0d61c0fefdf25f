/* The command line: one table of options, from which parsing, help and the recorded configuration are made.
 *
 * options_parse fills a struct from argv, with the defaults where nothing is said; strings are borrowed from argv.
 * options_free gives back what it holds.
 */
#ifndef LONGHAUL_PIPELINE_OPTIONS_H
#define LONGHAUL_PIPELINE_OPTIONS_H

#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

enum command {
    COMMAND_SUMMARIZE,
    COMMAND_SCORE,
    COMMAND_NEEDLE,
    COMMAND_PLAN,
    COMMAND_EXPORT,
    COMMAND_TOKENIZE,
    COMMAND_INSPECT,
    COMMAND_HELP,
    COMMAND_VERSION,
    COMMAND_COUNT,
    HELP_POLICIES = COMMAND_COUNT /* no command, but what help can be about */
};

enum strategy { STRATEGY_AUTO, STRATEGY_WHOLE, STRATEGY_MAP_REDUCE, STRATEGY_REFINE };
enum dtype_choice { DTYPE_CHOICE_AUTO, DTYPE_CHOICE_F32, DTYPE_CHOICE_BF16 };
enum device_choice { DEVICE_CHOICE_AUTO, DEVICE_CHOICE_CPU, DEVICE_CHOICE_CUDA };
/* Behind AUTO the methods, as enum position_kind has them. */
enum positions_choice { POSITIONS_CHOICE_AUTO, POSITIONS_CHOICE_METHODS };

struct string_list {
    const char **items;
    int64_t count;
};

struct options {
    enum command command;
    enum command about; /* of COMMAND_HELP: which command, or HELP_POLICIES; COMMAND_HELP itself: all */
    const char *const *operands;
    int n_operands;

    const char *model, *output, *prompt, *log_level;
    const char *policy, *layers, *against, *memory_budget; /* NULL: not said */
    int64_t ring, ranks, chunk, context, threads, max_new;
    int64_t segment; /* 0: not said */
    int64_t overlap; /* -1: not said */
    int64_t top_k, seed;
    double temperature, top_p, min_p, repeat_penalty, max_error_rate;
    int64_t strategy, device, dtype, positions; /* the enums above */
    int64_t format;                             /* enum export_format */
    double factor;                              /* of positions; 0: not said */
    int64_t truncate, retry_failed, dry_run;
    struct string_list include, exclude;
    struct string_list haystack;
    const char *tasks, *lengths, *depths; /* lists as they were said; NULL: not said */
    int64_t trials;
};

/* ERROR_USAGE in one line on anything unknown, misspelt, out of range or missing. */
int options_parse(struct options *options, int argc, char **argv, struct error *err);
void options_free(struct options *options);

/* The help of one command, with HELP_POLICIES of the policies, or with COMMAND_HELP of the program. */
void options_help(enum command command, FILE *out);
const char *command_name(enum command command);

/* Tokens that are carried through the model at a time on a CPU: as asked, or so many. */
enum { OPTIONS_SEGMENT = 2048 };
int64_t options_segment(const struct options *options);

/* The options that shape the results and what came of `positions`, as a JSON object in a buffer to be freed; the
 * same for two runs whose results may stand together. NULL: out of memory. */
char *options_json(const struct options *options, const char *positions);

#endif
