#include "io/durable.h"
#include "io/export.h"
#include "pipeline/commands.h"

int command_export(const struct options *options, struct error *err)
{
    const enum export_format format = (enum export_format)options->format;
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
