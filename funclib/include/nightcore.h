/*
 * nightcore.h - the interface between a function and the runtime that runs it.
 *
 * A function is a shared library. A container loads it once and calls it from any number of worker
 * threads, one call at a time on each. There are two versions of the interface; a library exports
 * one of them (where it exports both, the runtime takes v2):
 *
 *   v1  the four faas_* functions, unchanged from the original Nightcore: bytes in, bytes out,
 *       one internal call after the other.
 *   v2  nightcore_abi_version and nightcore_call: all that v1 has, and the request's method, path
 *       suffix, query and headers, the answer's status, content type and headers, errors with a
 *       kind, the time left, cancellation, and many internal calls in flight at once.
 *
 * Rules of both:
 *   - 0 is success.
 *   - Memory that the runtime hands out stays valid and unchanged until the function returns,
 *     unless stated otherwise. Memory that the function hands in is copied before the runtime
 *     returns.
 *   - Data is a pointer and a length in bytes, never terminated; with length 0 the pointer may be
 *     NULL.
 *   - A context may only be used by the thread that was called with it, and until it returns.
 *   - Input and answer are limited (16 MiB unless configured otherwise). Nothing is ever cut off:
 *     what does not fit fails the call.
 *
 * This header is C89 with <stdint.h>, and C++.
 */
#ifndef NIGHTCORE_H
#define NIGHTCORE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define NIGHTCORE_EXPORT __attribute__((visibility("default")))
#else
#define NIGHTCORE_EXPORT
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------------------------------------
 * Interface v1. The library defines the four faas_* functions.
 * ------------------------------------------------------------------------------------------- */

/*
 * Calls another function and waits for its answer. func_name is a terminated string. On success
 * *output and *output_length name the answer, valid until faas_func_call returns. Anything but 0
 * is a failure: unknown function, its error, deadline.
 */
typedef int (*invoke_fn)(void* caller_context, const char* func_name,
                         const char* input, size_t input_length,
                         const char** output, size_t* output_length);

/* Appends to the answer of the running call. */
typedef void (*append_output_fn)(void* caller_context, const char* data, size_t length);

/* Called once, before anything else. */
NIGHTCORE_EXPORT int faas_init(void);

/*
 * Called once on every worker thread. The callbacks are to be kept and called with caller_context,
 * by that thread and only during faas_func_call. *worker_handle is the library's own.
 */
NIGHTCORE_EXPORT int faas_create_func_worker(void* caller_context, invoke_fn invoke,
                                             append_output_fn append_output,
                                             void** worker_handle);

/* The worker thread ends. */
NIGHTCORE_EXPORT int faas_destroy_func_worker(void* worker_handle);

/* Runs one call. Anything but 0 fails it, and the output is thrown away. */
NIGHTCORE_EXPORT int faas_func_call(void* worker_handle, const char* input, size_t input_length);

/* ---------------------------------------------------------------------------------------------
 * Interface v2
 * ------------------------------------------------------------------------------------------- */

#define NIGHTCORE_ABI_VERSION 2u

/* How a call ended, and what the functions below return. */
enum nightcore_outcome {
    NIGHTCORE_OK = 0,
    NIGHTCORE_FUNCTION_ERROR = 1,    /* the function failed                         HTTP 500 */
    NIGHTCORE_FUNCTION_PANIC = 2,    /* the function panicked                            500 */
    NIGHTCORE_BAD_REQUEST = 3,       /* the input makes no sense                         400 */
    NIGHTCORE_NOT_FOUND = 4,         /* no such function, or not what was asked of it    404 */
    NIGHTCORE_TOO_LARGE = 5,         /* input or answer exceeds the limit                413 */
    NIGHTCORE_OVERLOADED = 6,        /* too many calls wait                              503 */
    NIGHTCORE_UNAVAILABLE = 7,       /* no container can take the call                   503 */
    NIGHTCORE_DEADLINE_EXCEEDED = 8, /* the deadline passed first                        504 */
    NIGHTCORE_TOO_DEEP = 9,          /* functions called each other too deep             508 */
    NIGHTCORE_CONTAINER_DIED = 10,   /* the callee's container died during the call      502 */
    NIGHTCORE_CANCELLED = 11,        /* nobody wants the answer any more                     */
    NIGHTCORE_NO_SPACE = 12,         /* no room in shared memory                         503 */
    NIGHTCORE_LIMIT_REACHED = 13,    /* a limit of the callee's own is reached           429 */
    NIGHTCORE_DEADLOCK = 14,         /* all who could run it wait for it                 503 */
    NIGHTCORE_BREAKER_OPEN = 15,     /* the callee's containers keep dying               503 */
    NIGHTCORE_HOST_LOST = 16,        /* the host that ran the call was lost              502 */
    NIGHTCORE_INVALID = 255          /* the function broke this interface: nothing was done  */
};

/* What `get` can be asked for. Of an internal call only FUNCTION, REQUEST_ID and TRACEPARENT. */
enum nightcore_field {
    NIGHTCORE_FUNCTION = 0,   /* name under which this function was deployed */
    NIGHTCORE_METHOD = 1,     /* HTTP method */
    NIGHTCORE_SUFFIX = 2,     /* path behind the function's name: empty, or begins with '/' */
    NIGHTCORE_QUERY = 3,      /* query string without '?', not decoded */
    NIGHTCORE_REQUEST_ID = 4, /* the same along a chain of internal calls */
    NIGHTCORE_TRACEPARENT = 5 /* W3C trace context */
};

/* One running call. Opaque. */
typedef struct nightcore_call_context nightcore_call_context;

/* The answer of an internal call. */
typedef struct nightcore_answer {
    int outcome;              /* NIGHTCORE_OK, or why the call failed: data is a message then */
    uint16_t status;          /* HTTP status the callee set, 200 if none */
    const uint8_t* data;      /* valid until call_release */
    size_t length;
    const char* content_type; /* valid until call_release; NULL if the callee set none */
    size_t content_type_length;
} nightcore_answer;

/*
 * What the runtime offers. The table is one per process and lives as long as it; later versions of
 * the runtime only append members: use one that is not in this header's first release only if
 * `size` says that it is there.
 */
typedef struct nightcore_host {
    size_t size; /* of this table in bytes, as the runtime knows it */

    /* Appends to the answer. TOO_LARGE beyond the limit, NO_SPACE: the call will fail. */
    int (*output_append)(nightcore_call_context* context, const uint8_t* data, size_t length);
    /*
     * Appends `length` bytes, to be written by the function through the result, which is valid
     * until the next output_*. What it does not write holds leftovers. NULL if there is no room.
     */
    uint8_t* (*output_reserve)(nightcore_call_context* context, size_t length);
    /* HTTP status of the answer, 200 to 599. */
    int (*set_status)(nightcore_call_context* context, int status);
    /* Content type of the answer: printable ASCII, up to 255 bytes. */
    int (*set_content_type)(nightcore_call_context* context, const char* value, size_t length);
    /* Adds a header to the answer: up to 64, 16 KiB in all. */
    int (*add_header)(nightcore_call_context* context, const char* name, size_t name_length,
                      const char* value, size_t value_length);
    /*
     * Fails the call whatever nightcore_call returns; the output so far is thrown away. `kind` is a
     * nightcore_outcome (anything unknown counts as FUNCTION_ERROR), the message is UTF-8 for
     * people. The last call counts.
     */
    int (*fail)(nightcore_call_context* context, int kind, const char* message, size_t length);

    /* A field of the request; a field that is absent is empty. INVALID: no such field. */
    int (*get)(nightcore_call_context* context, int field, const char** data, size_t* length);
    /* The request's headers, in the order they came. INVALID beyond the last. */
    size_t (*header_count)(nightcore_call_context* context);
    int (*header_at)(nightcore_call_context* context, size_t index,
                     const char** name, size_t* name_length,
                     const char** value, size_t* value_length);
    /* Nanoseconds until the caller stops waiting; 0 when it has. */
    uint64_t (*time_remaining_ns)(nightcore_call_context* context);
    /* How many functions called each other to get here; 0 for a call from outside. */
    uint32_t (*depth)(nightcore_call_context* context);
    /* 1 when nobody wants the answer any more. */
    int (*is_cancelled)(nightcore_call_context* context);

    /*
     * Starts a call to another function and returns at once; many may be in flight. Only when 48
     * are, or the memory for inputs is full, it waits for an answer first. *handle is only written
     * on success. TOO_LARGE, NO_SPACE, OVERLOADED (65,536 handles unreleased), INVALID (empty or
     * overlong name). An unknown function is not an error here but the answer's outcome.
     */
    int (*call_start)(nightcore_call_context* context,
                      const char* function, size_t function_length,
                      const uint8_t* input, size_t input_length, uint64_t* handle);
    /*
     * Waits for the answer of a started call, in any order; again for the same handle gives the
     * same answer. 0 means that *answer is filled, also when the call failed. INVALID: no such
     * handle.
     */
    int (*call_wait)(nightcore_call_context* context, uint64_t handle, nightcore_answer* answer);
    /*
     * The answer is not needed (any more). Handles left at the end are released by the runtime.
     * The answer of nightcore_call leaves when every call it started has been answered.
     */
    void (*call_release)(nightcore_call_context* context, uint64_t handle);
    /*
     * As call_start, but the call leaves with the next one that is started, or when the function
     * waits for any: several calls that leave together cost one wake-up of the runtime. Absent from
     * runtimes whose `size` is offsetof(nightcore_host, call_prepare) or less.
     */
    int (*call_prepare)(nightcore_call_context* context,
                        const char* function, size_t function_length,
                        const uint8_t* input, size_t input_length, uint64_t* handle);
    /*
     * Writes the text, UTF-8, to standard error, each line marked as of this request. Lines of up
     * to 4 KiB in all stay together, whatever other threads write. INVALID never; what standard
     * error does not take is lost. Absent from runtimes whose `size` is
     * offsetof(nightcore_host, log) or less.
     */
    int (*log)(nightcore_call_context* context, const char* text, size_t length);
} nightcore_host;

/* Required: returns NIGHTCORE_ABI_VERSION. */
NIGHTCORE_EXPORT uint32_t nightcore_abi_version(void);

/* Optional: called once, before any worker. Anything but 0 refuses the library. */
NIGHTCORE_EXPORT int nightcore_init(const nightcore_host* host);

/* Optional, both or none: called on every worker thread as it starts and ends. *worker is the
 * library's own and comes back in every nightcore_call of that thread. */
NIGHTCORE_EXPORT int nightcore_worker_create(const nightcore_host* host, void** worker);
NIGHTCORE_EXPORT void nightcore_worker_destroy(void* worker);

/* Required: runs one call. Anything but 0 fails it with NIGHTCORE_FUNCTION_ERROR, unless `fail`
 * said more. `worker` is NULL without nightcore_worker_create. */
NIGHTCORE_EXPORT int nightcore_call(void* worker, nightcore_call_context* context,
                                    const nightcore_host* host,
                                    const uint8_t* input, size_t input_length);

#ifdef __cplusplus
}
#endif

#endif /* NIGHTCORE_H */
