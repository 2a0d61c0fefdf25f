#include "io/durable.h"
#include "io/export.h"
#include "pipeline/commands.h"

int command_export(const struct options *options, struct error *err)
{
    static const enum export_format formats[] = {
        [FORMAT_CHOICE_AUTO] = EXPORT_AUTO,
        [FORMAT_CHOICE_JSONL] = EXPORT_JSONL,
        [FORMAT_CHOICE_MD] = EXPORT_MD,
        [FORMAT_CHOICE_CSV] = EXPORT_CSV,
    };
    const enum export_format format = formats[options->format];
    if (!options->output)
        return export_write(options->operands[0], format, stdout, err);
    struct durable *file = durable_create(options->output, err);
    if (!file)
        return -1;
    if (export_write(options->operands[0], format, durable_stream(file), err) != 0) {
        durable_abandon(file);
        return -1;
    }
    return durable_publish(file, err);
}
