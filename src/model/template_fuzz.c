/* SPDX-License-Identifier: Apache-2.0
 *
 * model/template_fuzz.c - any bytes as a chat template: what parses is run over a conversation.
 *
 * Corpus: tests/corpus/template/, one template a file. */
#include <stdint.h>
#include <string.h>

#include "base/assert.h"
#include "base/json.h"
#include "model/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TEXT(text) .content = (text), .content_len = sizeof(text) - 1
#define ROLE(text) .role = (text), .role_len = sizeof(text) - 1

static const struct template_message MESSAGES[] = {
    { ROLE("system"), TEXT("Be brief.") },
    { ROLE("user"), TEXT("H\xc3\xa4 <|x|>") },
    { ROLE("assistant"), TEXT("Yes\n") },
    { ROLE("user"), TEXT("") },
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char TOOLS[] = "[{\"function\":{\"name\":\"f\",\"parameters\":{\"a\":[1,2.5]}}}]";
    struct json_value *tools = NULL;
    struct template *template;
    struct template_output output;
    struct errmsg err;

    if (template_parse((const char *)data, size, &template, &err) != STATUS_OK) return 0;
    const enum status parsed = json_document_parse(TOOLS, sizeof(TOOLS) - 1, &tools, &err);
    ASSERT(parsed == STATUS_OK);
    const struct template_input inputs[] = {
        { .name = "tools", .kind = TEMPLATE_INPUT_JSON, .json = tools, .marked = true },
        { .name = "bos_token", .kind = TEMPLATE_INPUT_TEXT, .text = "<s>", .text_len = 3 },
        { .name = "add_generation_prompt", .kind = TEMPLATE_INPUT_BOOL, .flag = true },
    };
    if (template_render(template, MESSAGES, 4, inputs, 3, &output, &err) == STATUS_OK) {
        for (size_t i = 0; i < output.len; i++)
            ASSERT(output.marks[i] <= 1);
        template_output_fini(&output);
    }
    json_document_destroy(tools);
    template_destroy(template);
    return 0;
}
