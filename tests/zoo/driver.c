/* Runs one compiled model on raw input files and writes its outputs as raw files.
 *
 *     driver INPUT... -- OUTPUT BYTES [OUTPUT BYTES]...
 *
 * Built once a model, with -DRABOT_HEADER='"model.h"' -DRABOT_RUN=... -DRABOT_ARENA=...: the
 * header, the function and the size of the working memory that `rabot compile` made.
 * Nothing else of rabot is linked.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include RABOT_HEADER

enum { MAX_TENSORS = 64, ALIGNMENT = 64 };

static void fail(const char *what, const char *name) {
    fprintf(stderr, "driver: %s %s\n", what, name);
    exit(2);
}

/* Working memory is aligned for vector loads; no size gives a null pointer. */
static void *allocate(size_t bytes) {
    void *memory = aligned_alloc(ALIGNMENT, (bytes / ALIGNMENT + 1) * ALIGNMENT);
    if (!memory)
        fail("no memory for", "a tensor");
    return memory;
}

static void *read_file(const char *name) {
    FILE *file = fopen(name, "rb");
    if (!file || fseek(file, 0, SEEK_END))
        fail("cannot read", name);
    long bytes = ftell(file);
    rewind(file);
    void *memory = allocate((size_t)bytes);
    if (fread(memory, 1, (size_t)bytes, file) != (size_t)bytes)
        fail("cannot read", name);
    fclose(file);
    return memory;
}

static void write_file(const char *name, const void *memory, size_t bytes) {
    FILE *file = fopen(name, "wb");
    if (!file || fwrite(memory, 1, bytes, file) != bytes || fclose(file))
        fail("cannot write", name);
}

int main(int count, char **arguments) {
    const void *inputs[MAX_TENSORS];
    void *outputs[MAX_TENSORS];
    int at = 1, input_count = 0, output_count = 0;
    for (; at < count && strcmp(arguments[at], "--") && input_count < MAX_TENSORS; at++)
        inputs[input_count++] = read_file(arguments[at]);
    char **rest = arguments + at + 1;
    int pairs = (count - at - 1) / 2;
    if (at >= count || pairs < 1 || pairs > MAX_TENSORS)
        fail("usage:", "driver INPUT... -- OUTPUT BYTES [OUTPUT BYTES]...");
    for (; output_count < pairs; output_count++)
        outputs[output_count] = allocate(strtoull(rest[2 * output_count + 1], NULL, 10));

    int status = RABOT_RUN(inputs, outputs, allocate(RABOT_ARENA));
    if (status) {
        fprintf(stderr, "driver: the model returned %d\n", status);
        return 1;
    }
    for (int index = 0; index < output_count; index++)
        write_file(rest[2 * index], outputs[index], strtoull(rest[2 * index + 1], NULL, 10));
    return 0;
}
