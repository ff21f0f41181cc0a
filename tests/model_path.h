/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/model_path.h - where the real model is, for tests that need it, and what to do without it.
 *
 * The path is YOLK_TEST_MODEL if set, else where `yolk model fetch smollm2` puts it. Without the
 * file a test program ends with 77, aloud; with CI=true that is a failure, because nobody reads a
 * skip. */
#ifndef TESTS_MODEL_PATH_H
#define TESTS_MODEL_PATH_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The path, in a static buffer. The file need not be there. */
static inline const char *model_path(void)
{
    static char path[4096];
    const char *given = getenv("YOLK_TEST_MODEL");
    const char *cache = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    const char *name = "yolk/models/smollm2-135m-instruct-q4_1.gguf";

    if (given != NULL && *given != 0) {
        snprintf(path, sizeof(path), "%s", given);
    } else if (cache != NULL && *cache == '/') {
        snprintf(path, sizeof(path), "%s/%s", cache, name);
    } else {
        snprintf(path, sizeof(path), "%s/.cache/%s", home != NULL ? home : "", name);
    }
    return path;
}

/* The path of a readable model, or the end of the program. */
static inline const char *model_path_or_skip(void)
{
    const char *path = model_path();
    const char *ci = getenv("CI");

    if (access(path, R_OK) == 0) return path;
    fprintf(stderr, "%s: no model at %s (`yolk model fetch smollm2` gets it)\n",
            ci != NULL && strcmp(ci, "true") == 0 ? "FAILED" : "SKIPPED", path);
    exit(ci != NULL && strcmp(ci, "true") == 0 ? 1 : 77);
}

#endif
