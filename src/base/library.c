/* SPDX-License-Identifier: Apache-2.0 */
#include "base/library.h"

#include <dlfcn.h>
#include <string.h>

#include "base/assert.h"

enum status library_load(const char *file, const struct library_symbol *symbols, size_t count,
                         struct errmsg *err)
{
    ASSERT(file != NULL && (symbols != NULL || count == 0));
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        const char *why = dlerror();
        return errmsg_set(err, STATUS_NOT_FOUND, "%s", why != NULL ? why : file);
    }
    for (size_t i = 0; i < count; i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (symbol == NULL) {
            return errmsg_set(err, STATUS_UNSUPPORTED, "%s has no %s", file, symbols[i].name);
        }
        /* ISO C has no conversion from an object pointer to a function pointer; POSIX promises that
         * they look the same. */
        memcpy(symbols[i].to, &symbol, sizeof(symbol));
    }
    return STATUS_OK;
}

bool library_here(const char *file)
{
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);

    if (library == NULL) return false;
    dlclose(library); /* that only counted */
    return true;
}
