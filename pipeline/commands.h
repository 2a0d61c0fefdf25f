/* The subcommands, a file each: command_*.c. Each does its whole job and returns 0, or -1 with *err, like
 * everything else. */
#ifndef LONGHAUL_PIPELINE_COMMANDS_H
#define LONGHAUL_PIPELINE_COMMANDS_H

#include "base/error.h"
#include "pipeline/options.h"

/* summarize, score: under MPI, also with one rank. *code: the exit code of a run that came to its end. */
int command_run(const struct options *options, enum error_code *code, struct error *err);

/* needle: likewise. */
int command_needle(const struct options *options, enum error_code *code, struct error *err);

/* plan, and --dry-run of the others: what a run would do, on standard output. */
int command_plan(const struct options *options, struct error *err);

int command_export(const struct options *options, struct error *err);
int command_tokenize(const struct options *options, struct error *err);
int command_inspect(const struct options *options, struct error *err);

#endif
