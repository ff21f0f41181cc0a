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
    LOG_WARN("worker", "no_grammars", "reason=\"%s\"", err.text);
    return "the vocabulary cannot write every text";
}

const char *job_take_grammar(struct job *job, const struct proto_sampling *from)
{
    struct errmsg err;

    if (from->grammar.len == 0) return NULL;
    const char *wrong = words_of(job->worker);
    if (wrong != NULL) return wrong;
    const char *text = (const char *)from->grammar.data;
    if (grammar_compile(text, from->grammar.len, &job->grammar, &err) != STATUS_OK)
        return "the grammar does not compile";
    if (grammar_matcher_create(job->grammar, job->worker->words, &job->sampling.matcher) !=
        STATUS_OK)
        return "no memory for the grammar";
    return NULL;
}

void job_drop_grammar(struct job *job)
{
    grammar_matcher_destroy(job->sampling.matcher);
    grammar_destroy(job->grammar);
}
