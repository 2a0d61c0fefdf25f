/* longhaul: reads whole documents through a language model and writes down what they say.
 *
 * main reads the command line, hands over to the subcommand (pipeline/commands.h), and turns an error into a
 * message and an exit code. (Once the ranks work together, a failing one ends the job by comm_abort.)
 */
#include <locale.h>
#include <stdio.h>

#include "base/line.h"
#include "pipeline/commands.h"

static int run_command(const struct options *options, enum error_code *code, struct error *err)
{
    switch (options->command) {
    case COMMAND_SUMMARIZE:
    case COMMAND_SCORE:
        return options->dry_run ? command_plan(options, err) : command_run(options, code, err);
    case COMMAND_NEEDLE:
        return command_needle(options, code, err);
    case COMMAND_PLAN:
        return command_plan(options, err);
    case COMMAND_EXPORT:
        return command_export(options, err);
    case COMMAND_TOKENIZE:
        return command_tokenize(options, err);
    case COMMAND_INSPECT:
        return command_inspect(options, err);
    case COMMAND_HELP:
        options_help(options->about, stdout);
        return 0;
    case COMMAND_VERSION:
        puts("longhaul " LONGHAUL_VERSION);
        return 0;
    case COMMAND_COUNT:
        break;
    }
    return error_set(err, ERROR_INTERNAL, "command %d has nothing to do", (int)options->command);
}

int main(int argc, char **argv)
{
    struct options options;
    struct error err = {0};
    enum error_code code = ERROR_NONE;
    setlocale(LC_CTYPE, "C.UTF-8");
    if (options_parse(&options, argc, argv, &err) == 0) {
        run_command(&options, &code, &err);
        options_free(&options);
    }
    if (err.code == ERROR_NONE)
        return (int)code;
    if (err.text[0] != '\0')
        line_print(stderr, "longhaul: %s", err.text);
    return (int)err.code;
}
