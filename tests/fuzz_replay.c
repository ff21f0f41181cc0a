/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/fuzz_replay.c - runs a fuzz target over its committed corpus, without libFuzzer.
 *
 * Each argument is a file or a directory of files; each file is one input. On top of the bytes as
 * they are, every input is replayed truncated and with single bytes changed by a fixed generator,
 * so that even a small corpus walks the error paths. An empty corpus is a failure: a fuzz test
 * that runs nothing would look like one that passes. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { INPUT_SIZE_MAX = 1 << 20, MUTATIONS = 64 };

static unsigned inputs;

static void run_mutations(const uint8_t *data, size_t len)
{
    uint64_t state = 0x9e3779b97f4a7c15u ^ len;

    for (int i = 0; i < MUTATIONS && len > 0; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        size_t cut = (size_t)(state >> 33) % (len + 1);
        uint8_t *copy = malloc(len); /* exact size, so that a sanitizer sees one byte too far */
        if (copy == NULL) abort();
        memcpy(copy, data, len);
        if (i % 2 == 0) {
            uint8_t *prefix = malloc(cut ? cut : 1);
            if (prefix == NULL) abort();
            memcpy(prefix, data, cut);
            LLVMFuzzerTestOneInput(prefix, cut);
            free(prefix);
        } else {
            copy[cut % len] = (uint8_t)(state >> 17);
            LLVMFuzzerTestOneInput(copy, len);
        }
        free(copy);
    }
}

static void run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(1);
    }
    uint8_t *data = malloc(INPUT_SIZE_MAX);
    if (data == NULL) abort();
    size_t len = fread(data, 1, INPUT_SIZE_MAX, file);
    fclose(file);
    uint8_t *exact = malloc(len ? len : 1);
    if (exact == NULL) abort();
    memcpy(exact, data, len);
    free(data);
    LLVMFuzzerTestOneInput(exact, len);
    run_mutations(exact, len);
    free(exact);
    inputs++;
}

static void run_path(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        perror(path);
        exit(1);
    }
    if (!S_ISDIR(st.st_mode)) {
        run_file(path);
        return;
    }
    struct dirent **names = NULL;
    int count = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char child[4096];
        int n = snprintf(child, sizeof(child), "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.' && n > 0 && (size_t)n < sizeof(child)) run_file(child);
        free(names[i]);
    }
    free(names);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        run_path(argv[i]);
    if (inputs == 0) {
        fprintf(stderr, "no corpus given: nothing was tested\n");
        return 1;
    }
    printf("%u inputs replayed\n", inputs);
    return 0;
}
