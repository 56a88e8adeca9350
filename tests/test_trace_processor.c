/* tests/test_trace_processor.c - a trace as Perfetto's own trace processor reads it: nothing it complains of, rows and curves by their names, kernels nested
 * below step, layer, phase and op, and the ten longest kernels by SQL, which are those of the file.
 *
 * Skipped where the trace processor is not there: sh tools/test.sh --tools fetches it, and MOSLD_PERFETTO says where it is. */
#include "tests/support/program.h"
#include "tests/support/skip.h"
#include "tests/support/vk_test.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST "select name, dur from slice where category = 'kernel' order by dur desc, name limit 10"
/* Scopes have numbers behind their names; ops and kernels have none. */
#define NESTED \
    "select count(*) as n from slice k join slice op on k.parent_id = op.id join slice module on op.parent_id = module.id " \
    "join slice phase on module.parent_id = phase.id join slice layer on phase.parent_id = layer.id " \
    "join slice step on layer.parent_id = step.id where k.category = 'kernel' and k.name glob 'matmul_nt*' and op.name = 'matmul_nt' and " \
    "module.name = 'o_proj' and phase.name = 'forward' and layer.name = 'layer 3' and step.name = 'step 2'"

static void make(void)
{
    program_folder_make();
    write_text("t.jsonl", "{\"prompt\": \"Tom \", \"completion\": \"is glad.\"}\n{\"text\": \"Lily likes the big red ball.\"}\n");
}

static bool traced(char *device, size_t size, bool vulkan)
{
    if (!getenv("MOSLD_PERFETTO") || system("node --version >/dev/null 2>&1") != 0) {
        test_skipped("Perfetto's trace processor is not here (sh tools/test.sh --tools fetches it)");
        return false;
    }
    snprintf(device, size, "host");
    if (vulkan && !vk_test_name(device, size))
        return false;
    int status = program("train --model " STORIES " --task t=t.jsonl --out run --overwrite-output-dir --max-steps 3 --device %s --trace t.json", device);
    ck_assert_msg(status == 0, "status %d: %s", status, program_err());
    return true;
}

/* What the trace processor says to a query, its line of column names first. The caller frees it. */
static char *ask(const char *sql)
{
    char line[2000];
    size_t size;
    snprintf(line, sizeof line, "node " MOSLD_SOURCE_DIR "/tools/trace_processor.js \"$MOSLD_PERFETTO\" t.json \"%s\" >answer 2>&1", sql);
    int status = system(line);
    char *answer = read_bytes("answer", &size);
    ck_assert_msg(status == 0, "status %d of %s: %s", status, sql, answer);
    return answer;
}

static void expect(const char *sql, const char *want)
{
    char *got = ask(sql);
    ck_assert_msg(strcmp(got, want) == 0, "%s\ngave\n%sfor\n%s", sql, got, want);
    free(got);
}

START_TEST(it_has_nothing_to_complain_of)
{
    char device[32];
    if (!traced(device, sizeof device, _i))
        return;
    expect("select name, value from stats where severity in ('error', 'data_loss') and value > 0", "name\tvalue\n");
    expect("select count(*) as n from slice where name glob 'step *' and depth = 0", _i ? "n\n6\n" : "n\n3\n"); /* the program's, and the device's */
    expect("select distinct name from counter_track where name not glob '*MiB' order by name", "name\nloss nats/token\ntraining tokens/s\n");
    expect("select distinct name from counter_track where name = 'weights MiB'", "name\nweights MiB\n");
    expect("select name from process where pid = 1", "name\nmosld\n");
    expect("select count(*) as n from slice where dur < 0", "n\n0\n");
}
END_TEST

struct kernel {
    const char *name;
    double us;
};

static int longest_first(const void *a, const void *b)
{
    const struct kernel *x = a, *y = b;
    return x->us != y->us ? (x->us < y->us ? 1 : -1) : strcmp(x->name, y->name);
}

/* The same from the file itself, in nanoseconds as the trace processor counts. */
static char *longest_of(const char *path)
{
    size_t size, n = 0, length = 0;
    char *text = read_bytes(path, &size), *out = calloc(10, 200);
    cJSON *trace = cJSON_Parse(text), *e;
    ck_assert(cJSON_IsArray(trace) && out);
    struct kernel *kernels = calloc((size_t)cJSON_GetArraySize(trace), sizeof *kernels);
    ck_assert_ptr_nonnull(kernels);
    cJSON_ArrayForEach(e, trace)
    {
        const cJSON *category = cJSON_GetObjectItem(e, "cat");
        if (category && strcmp(category->valuestring, "kernel") == 0)
            kernels[n++] = (struct kernel){cJSON_GetObjectItem(e, "name")->valuestring, cJSON_GetObjectItem(e, "dur")->valuedouble};
    }
    ck_assert_uint_gt(n, 300);
    qsort(kernels, n, sizeof *kernels, longest_first);
    length += (size_t)sprintf(out, "name\tdur\n");
    for (size_t i = 0; i < 10; i++)
        length += (size_t)sprintf(out + length, "%.100s\t%.0f\n", kernels[i].name, 1e3 * kernels[i].us);
    free(kernels);
    cJSON_Delete(trace);
    free(text);
    return out;
}

START_TEST(the_ten_longest_kernels_by_sql)
{
    char device[32];
    if (!traced(device, sizeof device, true))
        return;
    char *want = longest_of("t.json");
    expect(LONGEST, want);
    free(want);
    expect(NESTED, "n\n1\n");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("trace processor");
    TCase *tc = tcase_create("trace processor");
    tcase_add_checked_fixture(tc, make, program_folder_remove);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, it_has_nothing_to_complain_of, 0, 2);
    tcase_add_test(tc, the_ten_longest_kernels_by_sql);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
