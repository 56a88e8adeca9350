/* tests/test_devices.c - the command `mosld devices`. */
#include "tests/support/vk_test.h"

#include <cjson/cJSON.h>
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

static char output[1 << 16];

/* The exit status; standard output is left in `output`. */
static int run(const char *environment, const char *arguments)
{
    char command[1024];
    snprintf(command, sizeof command, "%s '%s' devices %s 2>/dev/null", environment, MOSLD_PROGRAM, arguments);
    FILE *f = popen(command, "r");
    ck_assert(f != NULL);
    size_t n = fread(output, 1, sizeof output - 1, f);
    output[n] = 0;
    int status = pclose(f);
    ck_assert_msg(WIFEXITED(status), "%s: it crashed", command);
    return WEXITSTATUS(status);
}

static cJSON *parsed(void)
{
    cJSON *root = cJSON_Parse(output);
    ck_assert_msg(root != NULL, "not JSON: %s", output);
    return root;
}

START_TEST(json_lists_the_host_and_what_auto_takes)
{
    ck_assert_int_eq(run("", "--json"), 0);
    cJSON *root = parsed(), *devices = cJSON_GetObjectItem(root, "devices"), *d;
    int hosts = 0, index = 0;
    cJSON_ArrayForEach(d, devices) {
        ck_assert_int_eq(cJSON_GetObjectItem(d, "index")->valueint, index++);
        ck_assert(cJSON_GetObjectItem(d, "memory")->valuedouble > 0);
        hosts += strcmp(cJSON_GetObjectItem(d, "kind")->valuestring, "host") == 0;
    }
    ck_assert_int_eq(hosts, 1);
    ck_assert_int_eq(cJSON_GetObjectItem(root, "auto")->valueint, 0);
    cJSON_Delete(root);
}
END_TEST

START_TEST(without_a_driver_the_host_is_there_and_a_note)
{
    ck_assert_int_eq(run("VK_ICD_FILENAMES=/nonexistent VK_DRIVER_FILES=/nonexistent", "--json"), 0);
    cJSON *root = parsed(), *devices = cJSON_GetObjectItem(root, "devices");
    ck_assert_int_eq(cJSON_GetArraySize(devices), 1);
    ck_assert_str_eq(cJSON_GetObjectItem(cJSON_GetArrayItem(devices, 0), "kind")->valuestring, "host");
    ck_assert(strstr(cJSON_GetObjectItem(root, "note")->valuestring, "host device") != NULL);
    cJSON_Delete(root);
}
END_TEST

START_TEST(a_clamp_is_shown)
{
    char name[32];
    if (!vk_test_name(name, sizeof name))
        return;
    ck_assert_int_eq(run("MOSLD_CAPS=minimal", "--json"), 0);
    cJSON *root = parsed(), *d;
    cJSON_ArrayForEach(d, cJSON_GetObjectItem(root, "devices")) {
        if (strcmp(cJSON_GetObjectItem(d, "kind")->valuestring, "vulkan") != 0)
            continue;
        ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(d, "used")), 0);
        ck_assert_int_gt(cJSON_GetArraySize(cJSON_GetObjectItem(d, "clamped")), 0);
        ck_assert_int_eq(cJSON_GetObjectItem(cJSON_GetObjectItem(d, "limits"), "max_shared")->valueint, 16384);
    }
    cJSON_Delete(root);
}
END_TEST

START_TEST(exit_statuses)
{
    ck_assert_int_eq(run("", ""), 0);
    ck_assert(strstr(output, "host") != NULL);
    ck_assert_int_eq(run("", "--help"), 0);
    ck_assert_int_eq(run("", "--nonsense"), 2);
    ck_assert_int_eq(run("MOSLD_CAPS=nonsense", ""), 2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("devices");
    TCase *t = tcase_create("devices");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, json_lists_the_host_and_what_auto_takes);
    tcase_add_test(t, without_a_driver_the_host_is_there_and_a_note);
    tcase_add_test(t, a_clamp_is_shown);
    tcase_add_test(t, exit_statuses);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
