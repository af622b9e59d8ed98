/*
 * "wait" sleeps until the container dies, "die" ends it, anything else is answered with "alive".
 * Interface v1.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nightcore.h"

typedef struct {
    void* context;
    append_output_fn append_output;
} worker;

int faas_init(void) { return 0; }

int faas_create_func_worker(void* caller_context, invoke_fn invoke, append_output_fn append_output,
                            void** worker_handle) {
    worker* made = malloc(sizeof *made);
    (void)invoke;
    if (made == NULL) return 1;
    made->context = caller_context;
    made->append_output = append_output;
    *worker_handle = made;
    return 0;
}

int faas_destroy_func_worker(void* worker_handle) {
    free(worker_handle);
    return 0;
}

int faas_func_call(void* worker_handle, const char* input, size_t input_length) {
    const worker* self = worker_handle;
    if (input_length == 4 && memcmp(input, "wait", 4) == 0) {
        for (;;) pause();
    }
    if (input_length == 3 && memcmp(input, "die", 3) == 0) abort();
    self->append_output(self->context, "alive", 5);
    return 0;
}
