#include "pipeline/identity.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "io/digest.h"
#include "pipeline/asked.h"
#include "pipeline/layers.h"
#include "pipeline/positions.h"

static int digest_layers(const char *lines, char hex[DIGEST_HEX_BYTES], struct error *err)
{
    return layers_are_lines(lines) ? digest_bytes(lines, strlen(lines), hex, err) : digest_file(lines, hex, err);
}

/* Everything that decides an answer: the options that do, the weights, the words of the files that options name. */
static int hash_config(struct identity *identity, const struct options *options, const struct model *model,
                       struct error *err)
{
    char prompt[DIGEST_HEX_BYTES] = "", layers[DIGEST_HEX_BYTES] = "";
    if ((options->prompt && digest_file(options->prompt, prompt, err) != 0) ||
        (options->layers && digest_layers(options->layers, layers, err) != 0))
        return -1;
    char *all = NULL;
    const bool usual = options_segment(options) == OPTIONS_SEGMENT; /* also where it is said */
    const int64_t segment = asked_heeds_segments(options, model) && !usual ? options->segment : 0;
    const int length = asprintf(&all, "%s|%s|%s|%s|%s|%" PRId64, identity->options, identity->model_sha256,
                                identity->tokenizer_hash, prompt, layers, segment);
    if (length < 0)
        return error_set(err, ERROR_RESOURCE, "no memory for the run's configuration");
    const int status = digest_bytes(all, (size_t)length, identity->config_hash, err);
    free(all);
    return status;
}

int identity_make(struct identity *identity, const struct options *options, const struct opened_model *opened,
                  struct error *err)
{
    *identity = (struct identity){0};
    char positions[POSITIONS_DESCRIPTION];
    positions_describe(options, opened->model, positions, sizeof positions);
    if (!(identity->options = options_json(options, positions)))
        return error_set(err, ERROR_RESOURCE, "no memory for the run's configuration");
    if (digest_file(options->model, identity->model_sha256, err) != 0)
        return -1;
    snprintf(identity->tokenizer_hash, sizeof identity->tokenizer_hash, "%016" PRIx64,
             tokenizer_hash(opened->tokenizer));
    snprintf(identity->architecture, sizeof identity->architecture, "%s", opened->model->arch->name);
    if (hash_config(identity, options, opened->model, err) != 0)
        return -1;
    const time_t now = time(NULL);
    struct tm utc;
    strftime(identity->started, sizeof identity->started, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    identity->run = (struct results_run){
        .task = options->command == COMMAND_SCORE ? RESULT_SCORE : RESULT_SUMMARIZE,
        .version = LONGHAUL_VERSION,
        .model_path = options->model,
        .model_sha256 = identity->model_sha256,
        .tokenizer_hash = identity->tokenizer_hash,
        .architecture = identity->architecture,
        .options = identity->options,
        .config_hash = identity->config_hash,
        .hosts = "",
        .dtype = "",
        .started = identity->started,
    };
    return 0;
}

void identity_complete(struct identity *identity, const struct plan *plan, const char *hosts)
{
    identity->run.hosts = hosts;
    identity->run.dtype = dtype_name((enum dtype)plan->setup.dtype);
    identity->run.ranks = plan->ranks;
    /* A run that has nothing to compute says nothing about rings to the next one. */
    identity->run.ring_size = plan->setup.n_settings > 0 ? plan->setup.ring : plan->ring_before;
}

void identity_clear(struct identity *identity)
{
    free(identity->options);
    *identity = (struct identity){0};
}
