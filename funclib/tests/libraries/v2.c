/* Interface v2 with all that is optional: counts its calls per worker, answers by output_reserve,
 * and tries what the interface forbids. */
#include <nightcore.h>
#include <stdlib.h>
#include <string.h>

static const nightcore_host* table = NULL;

uint32_t nightcore_abi_version(void) { return NIGHTCORE_ABI_VERSION; }

int nightcore_init(const nightcore_host* host) {
    table = host;
    return host->size >= sizeof(nightcore_host) ? 0 : 1;
}

int nightcore_worker_create(const nightcore_host* host, void** worker) {
    *worker = calloc(1, sizeof(int));
    return host == table && *worker != NULL ? 0 : 1;
}

void nightcore_worker_destroy(void* worker) { free(worker); }

int nightcore_call(void* worker, nightcore_call_context* context, const nightcore_host* host,
                   const uint8_t* input, size_t length) {
    int* count = worker;
    uint8_t* place;
    uint64_t call;
    nightcore_answer answer;
    const char* data;
    size_t size;
    ++*count;
    if (length > 0 && input[0] == 'f') return host->fail(context, NIGHTCORE_NOT_FOUND, "gone", 4);
    if (length > 0 && input[0] == 'r') return 42;
    if (host->set_status(context, 199) != NIGHTCORE_INVALID) return 1;
    if (host->set_content_type(context, "a\nb", 3) != NIGHTCORE_INVALID) return 2;
    if (host->add_header(context, "", 0, "x", 1) != NIGHTCORE_INVALID) return 3;
    if (host->get(context, 99, &data, &size) != NIGHTCORE_INVALID) return 4;
    if (host->header_at(context, 0, &data, &size, &data, &size) != NIGHTCORE_INVALID) return 5;
    if (host->call_wait(context, 12345, &answer) != NIGHTCORE_INVALID) return 6;
    host->call_release(context, 12345);
    if (host->call_start(context, "echo", 4, input, length, &call) != 0) return 7;
    if (host->call_wait(context, call, &answer) != 0) return 8;
    if (host->call_wait(context, call, &answer) != 0) return 9;
    if (answer.length != length || memcmp(answer.data, input, length) != 0) return 10;
    host->call_release(context, call);
    if (host->call_wait(context, call, &answer) != NIGHTCORE_INVALID) return 11;
    host->call_release(context, call);
    if (host->output_append(context, NULL, 0) != 0) return 12;
    if (host->output_append(context, (const uint8_t*)"n=", 2) != 0) return 13;
    place = host->output_reserve(context, 1);
    if (place == NULL) return 14;
    *place = (uint8_t)('0' + *count);
    return 0;
}
