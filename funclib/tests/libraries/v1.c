/* Interface v1: calls "echo" as often as the first byte says and appends what it answers, one
 * byte at a time. Keeps every answer until the end, as the interface allows. */
#include <nightcore.h>
#include <stdlib.h>

struct worker {
    void* context;
    invoke_fn invoke;
    append_output_fn append;
};

static int initialised = 0;

int faas_init(void) {
    initialised = 1;
    return 0;
}

int faas_create_func_worker(void* context, invoke_fn invoke, append_output_fn append,
                            void** handle) {
    struct worker* worker = malloc(sizeof *worker);
    if (worker == NULL || !initialised) return -1;
    worker->context = context;
    worker->invoke = invoke;
    worker->append = append;
    *handle = worker;
    return 0;
}

int faas_destroy_func_worker(void* handle) {
    free(handle);
    return 0;
}

int faas_func_call(void* handle, const char* input, size_t length) {
    struct worker* worker = handle;
    const char* outputs[256];
    size_t lengths[256];
    int calls = length > 0 ? (unsigned char)input[0] : 0;
    int i;
    size_t k;
    for (i = 0; i < calls; i++) {
        int code = worker->invoke(worker->context, "echo", input + 1, length - 1, &outputs[i],
                                  &lengths[i]);
        if (code != 0) return 7;
    }
    for (i = 0; i < calls; i++) {
        for (k = 0; k < lengths[i]; k++) worker->append(worker->context, outputs[i] + k, 1);
    }
    return 0;
}
