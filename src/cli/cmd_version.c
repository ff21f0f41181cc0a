/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cli/cli.h"
#include "infer/engine.h"

int cmd_version(struct cli *cli)
{
    (void)cli;
    printf("yolk %s\ncommit %s\ncompiler %s\ninstruction sets here:", YOLK_VERSION, YOLK_COMMIT,
           YOLK_COMPILER);
    for (enum engine_isa isa = ENGINE_ISA_PORTABLE; isa <= ENGINE_ISA_AVX512; isa++) {
        if (engine_isa_supported(isa)) printf(" %s", engine_isa_name(isa));
    }
    putchar('\n');
    return CLI_EXIT_OK;
}
