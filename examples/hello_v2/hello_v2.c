/*
 * A function in C, against interface v2: answers "Hello, <input>!", where the input is the path
 * behind its name, or else the body. A query of "echo" sends the name through another function.
 */
#include <nightcore.h>
#include <string.h>

#define TEXT(literal) (const uint8_t*)(literal), sizeof(literal) - 1

uint32_t nightcore_abi_version(void) { return NIGHTCORE_ABI_VERSION; }

int nightcore_call(void* worker, nightcore_call_context* context, const nightcore_host* host,
                   const uint8_t* input, size_t input_length) {
    static const char type[] = "text/plain; charset=utf-8";
    const char *suffix, *query;
    size_t suffix_length, query_length;
    (void)worker; /* no nightcore_worker_create, so NULL */

    host->get(context, NIGHTCORE_SUFFIX, &suffix, &suffix_length);
    host->get(context, NIGHTCORE_QUERY, &query, &query_length);
    if (suffix_length > 1) {
        input = (const uint8_t*)suffix + 1;
        input_length = suffix_length - 1;
    }
    if (input_length == 0) {
        static const char message[] = "whom shall I greet? POST a name";
        return host->fail(context, NIGHTCORE_BAD_REQUEST, message, sizeof message - 1);
    }
    host->set_content_type(context, type, sizeof type - 1);
    host->output_append(context, TEXT("Hello, "));
    if (query_length == 4 && memcmp(query, "echo", 4) == 0) {
        uint64_t call;
        nightcore_answer answer;
        int code = host->call_start(context, "echo", 4, input, input_length, &call);
        if (code != NIGHTCORE_OK) return code;
        code = host->call_wait(context, call, &answer);
        if (code != NIGHTCORE_OK) return code;
        if (answer.outcome != NIGHTCORE_OK) {
            return host->fail(context, answer.outcome, (const char*)answer.data, answer.length);
        }
        host->output_append(context, answer.data, answer.length);
        host->call_release(context, call);
    } else {
        host->output_append(context, input, input_length);
    }
    /* What does not fit fails the call, so the results need no checks. */
    return host->output_append(context, TEXT("!\n"));
}
