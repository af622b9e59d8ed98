/*
 * Answers what the runtime tells of the call, one "key=value" a line, with a status, a content type
 * and a header of its own.
 */
#include <stdio.h>
#include <string.h>

#include "nightcore.h"

static int line(nightcore_call_context* context, const nightcore_host* host, const char* key,
                const char* value, size_t length) {
    const uint8_t* parts[4];
    size_t sizes[4], i;
    parts[0] = (const uint8_t*)key, sizes[0] = strlen(key);
    parts[1] = (const uint8_t*)"=", sizes[1] = 1;
    parts[2] = (const uint8_t*)value, sizes[2] = length;
    parts[3] = (const uint8_t*)"\n", sizes[3] = 1;
    for (i = 0; i < 4; i++) {
        int result = host->output_append(context, parts[i], sizes[i]);
        if (result != NIGHTCORE_OK) return result;
    }
    return NIGHTCORE_OK;
}

uint32_t nightcore_abi_version(void) { return NIGHTCORE_ABI_VERSION; }

int nightcore_call(void* worker, nightcore_call_context* context, const nightcore_host* host,
                   const uint8_t* input, size_t input_length) {
    static const char* const keys[] = {"function", "method",     "suffix",
                                       "query",    "request_id", "traceparent"};
    const char *name, *value;
    size_t name_length, length, i;
    char text[32];
    int field;
    (void)worker;

    for (field = NIGHTCORE_FUNCTION; field <= NIGHTCORE_TRACEPARENT; field++) {
        if (host->get(context, field, &value, &length) != NIGHTCORE_OK) return 1;
        if (line(context, host, keys[field], value, length) != NIGHTCORE_OK) return 1;
    }
    for (i = 0; i < host->header_count(context); i++) {
        char key[64];
        if (host->header_at(context, i, &name, &name_length, &value, &length)) return 1;
        snprintf(key, sizeof key, "header %.*s", (int)name_length, name);
        if (line(context, host, key, value, length) != NIGHTCORE_OK) return 1;
    }
    snprintf(text, sizeof text, "%u", (unsigned)host->depth(context));
    if (line(context, host, "depth", text, strlen(text)) != NIGHTCORE_OK) return 1;
    if (line(context, host, "input", (const char*)input, input_length) != NIGHTCORE_OK) return 1;

    if (host->set_status(context, 201) != NIGHTCORE_OK) return 1;
    if (host->set_content_type(context, "text/x-inspected", 16) != NIGHTCORE_OK) return 1;
    return host->add_header(context, "X-Inspected", 11, "yes", 3);
}
