/* tests/test_capture_tools.c - what capture tools make of a training step: RenderDoc and gfxreconstruct, on the processor's Vulkan driver.
 *
 * Skipped where a tool is not installed: sh tools/test.sh --tools installs them. What RenderDoc's capture holds is read by
 * tests/profile/renderdoc_read.py, with its own Python module. */
#include "tests/support/program.h"
#include "tests/support/skip.h"
#include "tests/support/vk_test.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TRAIN "train --model " STORIES " --task t=t.jsonl --out run --overwrite-output-dir --max-steps 2 --device "

static char device[32];

static void make(void)
{
    program_folder_make();
    write_text("t.jsonl", "{\"prompt\": \"Tom \", \"completion\": \"is glad.\"}\n{\"text\": \"Lily likes the big red ball.\"}\n");
}

static bool installed(const char *command, const char *package)
{
    char line[200];
    snprintf(line, sizeof line, "%s >/dev/null 2>&1", command);
    if (system(line) == 0)
        return true;
    test_skipped("%s is not installed (sh tools/test.sh --tools installs it)", package);
    return false;
}

static bool can_run(void)
{
#ifdef __SANITIZE_ADDRESS__
    test_skipped("tools that load themselves into the program do not live with the address sanitizer");
    return false;
#else
    return vk_test_name(device, sizeof device);
#endif
}

static void shell(const char *line)
{
    int status = system(line);
    ck_assert_msg(status == 0, "status %d of: %s", status, line);
}

static cJSON *parse_file(const char *path)
{
    size_t size;
    char *text = read_bytes(path, &size);
    cJSON *json = cJSON_Parse(text);
    ck_assert_msg(json != NULL, "%s is no JSON: %.200s", path, text);
    free(text);
    return json;
}

static bool has(const cJSON *json, const char *list, const char *text)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(json, list))
        if (strcmp(item->valuestring, text) == 0)
            return true;
    return false;
}

static void must_have(const cJSON *json, const char *list, const char *text) { ck_assert_msg(has(json, list, text), "%s: no %s", list, text); }

/* Of a trace: how many kernels stand in it. */
static int traced_kernels(const char *path)
{
    cJSON *trace = parse_file(path), *event;
    int n = 0;
    cJSON_ArrayForEach(event, trace)
    {
        const cJSON *category = cJSON_GetObjectItem(event, "cat");
        n += category && strcmp(category->valuestring, "kernel") == 0;
    }
    cJSON_Delete(trace);
    return n;
}

START_TEST(renderdoc_sees_the_step_as_the_engine_does)
{
    char line[1500];
    if (!can_run() || !installed("renderdoccmd version", "renderdoc") || !installed("/usr/bin/python3 -c 'import renderdoc'", "python3-renderdoc"))
        return;
    snprintf(line, sizeof line, "renderdoccmd capture -w -d \"$PWD\" -c \"$PWD/cap\" " MOSLD_PROGRAM " " TRAIN
             "%s --capture 1 --dump-gradients g.safetensors >log 2>&1", device);
    shell(line);
    shell("grep -q \"1 captures delimited by RenderDoc's API\" log || { cat log >&2; false; }");
    shell("/usr/bin/python3 " MOSLD_SOURCE_DIR "/tests/profile/renderdoc_read.py cap*.rdc g.safetensors >read.json");
    cJSON *json = parse_file("read.json");
    must_have(json, "steps", "step 1");
    ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(json, "steps")), 1);
    ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(json, "layers")), 5);
    must_have(json, "layers", "layer 4");
    must_have(json, "phases", "forward");
    must_have(json, "phases", "backward");
    must_have(json, "modules", "o_proj");
    must_have(json, "modules", "attention");
    must_have(json, "ops", "matmul_nn");
    must_have(json, "kernels", "adamw");
    must_have(json, "buffers", "weights");
    must_have(json, "buffers", "adapter");
    must_have(json, "tensors", "model.layers.2.mlp.gate_proj.weight");
    must_have(json, "tensors", "adapter gradients");
    ck_assert_int_gt(cJSON_GetObjectItem(json, "gradient_bytes")->valueint, 0); /* they were found, or the script had failed */
    cJSON_Delete(json);
}
END_TEST

/* Without the API in the process the same range is delimited by labels, and nothing else changes. */
START_TEST(without_a_tool_labels_delimit)
{
    if (!can_run())
        return;
    ck_assert_int_eq(program(TRAIN "%s --capture 1-2", device), 0);
    ck_assert_ptr_nonnull(strstr(program_err(), "2 captures delimited by labels"));
}
END_TEST

/* Kernels whose grid may be cut are dispatched with a base. */
static int dispatches_of(const char *capture)
{
    char line[300], number[32];
    snprintf(line, sizeof line, "gfxrecon-convert --output out.json %s >/dev/null && grep -oE '\"vkCmdDispatch(Base)?\"' out.json | wc -l >count", capture);
    shell(line);
    size_t size;
    char *text = read_bytes("count", &size);
    snprintf(number, sizeof number, "%s", text);
    free(text);
    return atoi(number);
}

START_TEST(gfxreconstruct_replays_as_many_dispatches)
{
    char line[1500];
    static const char layer[] = "VK_INSTANCE_LAYERS=VK_LAYER_LUNARG_gfxreconstruct GFXRECON_CAPTURE_FILE_TIMESTAMP=false GFXRECON_LOG_LEVEL=error";
    if (!can_run() || !installed("gfxrecon-info --version", "gfxreconstruct"))
        return;
    snprintf(line, sizeof line, "%s GFXRECON_CAPTURE_FILE=\"$PWD/a.gfxr\" " MOSLD_PROGRAM " " TRAIN "%s --trace t.json >log 2>&1 || { cat log >&2; false; }",
             layer, device);
    shell(line);
    /* The replay is captured in turn, so what it did is counted and not assumed. */
    snprintf(line, sizeof line, "%s GFXRECON_CAPTURE_FILE=\"$PWD/b.gfxr\" gfxrecon-replay a.gfxr >log 2>&1 || { cat log >&2; false; }", layer);
    shell(line);
    int ours = traced_kernels("t.json");
    ck_assert_int_gt(ours, 100);
    ck_assert_int_eq(dispatches_of("a.gfxr"), ours);
    ck_assert_int_eq(dispatches_of("b.gfxr"), ours);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("capture tools");
    TCase *tc = tcase_create("tools");
    tcase_add_checked_fixture(tc, make, program_folder_remove);
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, renderdoc_sees_the_step_as_the_engine_does);
    tcase_add_test(tc, without_a_tool_labels_delimit);
    tcase_add_test(tc, gfxreconstruct_replays_as_many_dispatches);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
