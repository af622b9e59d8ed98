/*
 * A function in C, against interface v1: answers "Hello, <input>!".
 */
#include <nightcore.h>
#include <stdlib.h>

/* One per worker thread: how to talk to the runtime. */
struct worker {
    void* caller_context;
    append_output_fn append_output;
};

int faas_init(void) { return 0; }

int faas_create_func_worker(void* caller_context, invoke_fn invoke,
                            append_output_fn append_output, void** worker_handle) {
    struct worker* worker = malloc(sizeof *worker);
    if (worker == NULL) return -1;
    (void)invoke; /* this function calls no other */
    worker->caller_context = caller_context;
    worker->append_output = append_output;
    *worker_handle = worker;
    return 0;
}

int faas_destroy_func_worker(void* worker_handle) {
    free(worker_handle);
    return 0;
}

int faas_func_call(void* worker_handle, const char* input, size_t input_length) {
    struct worker* worker = worker_handle;
    worker->append_output(worker->caller_context, "Hello, ", 7);
    if (input_length > 0) {
        worker->append_output(worker->caller_context, input, input_length);
    } else {
        worker->append_output(worker->caller_context, "world", 5);
    }
    worker->append_output(worker->caller_context, "!\n", 2);
    return 0;
}
