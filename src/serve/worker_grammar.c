/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/worker_grammar.c - answers of a given form, at a node: the grammar of a job and where its
 * answer is in it.
 *
 * The matcher follows the tokens by itself when the sampler asks (infer/sampler.c), so a job that
 * comes with a part of its answer goes on where that ended. It belongs to the engine thread while a
 * step is under way, as the job's pages do. What the tokens of the vocabulary say is collected when
 * the first such job comes. */
#include "serve/worker_int.h"

#include "base/log.h"
#include "infer/grammar.h"

static const char *words_of(struct worker *worker)
{
    struct errmsg err = { "no memory" };

    if (worker->words != NULL) return NULL;
    if (worker->options.tokenizer == NULL) return "this node knows no texts of tokens";
    if (grammar_words_create(worker->options.tokenizer, &worker->words, &err) == STATUS_OK)
        return NULL;
    LOG_WARN("worker", "no_grammars", "reason=%s", err.text);
    return "the vocabulary cannot write every text";
}

/* Free text until a call: without the grammar it is an answer, too. */
static const char *do_without(struct job *job, const char *why)
{
    if (!grammar_is_lazy(job->grammar)) return why;
    grammar_destroy(job->grammar);
    job->grammar = NULL;
    return NULL;
}

const char *job_take_grammar(struct job *job, const struct proto_sampling *from)
{
    struct errmsg err;

    if (from->grammar.len == 0) return NULL;
    const char *text = (const char *)from->grammar.data;
    if (grammar_compile(text, from->grammar.len, &job->grammar, &err) != STATUS_OK)
        return "the grammar does not compile";
    const char *wrong = words_of(job->worker);
    if (wrong != NULL) return do_without(job, wrong);
    const enum status status =
        grammar_matcher_create(job->grammar, job->worker->words, &job->sampling.matcher);
    if (status == STATUS_UNSUPPORTED)
        return do_without(job, "the vocabulary cannot write a name or a value in the grammar");
    return status == STATUS_OK ? NULL : "no memory for the grammar";
}

void job_drop_grammar(struct job *job)
{
    grammar_matcher_destroy(job->sampling.matcher);
    grammar_destroy(job->grammar);
}
