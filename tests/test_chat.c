/* tests/test_chat.c - chat templates: recognising, rendering, what bears loss, encoding.
 *
 * tests/vectors/chat-templates.jsonl holds conversations and the text that jinja2 3.1.6 makes of them with the models'
 * official templates, in the environment that Transformers uses (trim_blocks, lstrip_blocks). */
#include "mosld/io/file.h"
#include "mosld/text/chat.h"
#include "tests/support/text_test.h"

#include <cjson/cJSON.h>
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_MESSAGES 8

static size_t read_messages(const cJSON *list, struct mosld_chat_message out[MAX_MESSAGES])
{
    const cJSON *m;
    size_t n = 0;
    cJSON_ArrayForEach(m, list)
    {
        ck_assert_uint_lt(n, MAX_MESSAGES);
        out[n].role = cJSON_GetObjectItem(m, "role")->valuestring;
        out[n++].content = cJSON_GetObjectItem(m, "content")->valuestring;
    }
    return n;
}

/* Ranges are in order, inside the text, and each loss range ends an answer. */
static void check_ranges(const struct mosld_chat_text *text, size_t answers)
{
    size_t at = 0;
    for (size_t i = 0; i < text->special_count; i++) {
        ck_assert(text->special[i].start >= at && text->special[i].start < text->special[i].end);
        at = text->special[i].end;
    }
    ck_assert_uint_le(at, text->len);
    ck_assert_uint_eq(text->loss_count, answers);
    at = 0;
    for (size_t i = 0; i < text->loss_count; i++) {
        ck_assert(text->loss[i].start >= at && text->loss[i].start < text->loss[i].end);
        at = text->loss[i].end;
    }
    ck_assert_uint_le(at, text->len);
}

START_TEST(rendering_agrees_with_jinja)
{
    struct rt_error err = {0};
    char *data = NULL;
    size_t size = 0, rows = 0;
    ck_assert_msg(file_read(MOSLD_SOURCE_DIR "/tests/vectors/chat-templates.jsonl", 1 << 20, &data, &size, &err) ==
                      RT_OK,
                  "%s", err.text);
    for (char *line = data, *end; (end = strchr(line, '\n')); line = end + 1) {
        struct mosld_chat_message messages[MAX_MESSAGES];
        struct mosld_chat_template t;
        struct mosld_chat_text text;
        cJSON *row = cJSON_ParseWithLength(line, (size_t)(end - line));
        ck_assert_ptr_nonnull(row);
        size_t n = read_messages(cJSON_GetObjectItem(row, "messages"), messages), answers = 0;
        for (size_t i = 0; i < n; i++)
            answers += strcmp(messages[i].role, "assistant") == 0;
        const char *name = cJSON_GetObjectItem(row, "template")->valuestring;
        bool llama3 = strncmp(name, "llama3", 6) == 0;
        const struct mosld_chat_params params = {.add_generation_prompt =
                                                     cJSON_IsTrue(cJSON_GetObjectItem(row, "add_generation_prompt")),
                                                 .no_thinking = cJSON_IsTrue(cJSON_GetObjectItem(row, "no_thinking")),
                                                 .bos = llama3 ? NULL : "<s>",
                                                 .eos = llama3 ? NULL : "</s>"};
        ck_assert_int_eq(mosld_chat_template_by_name(name, &t, &err), RT_OK);
        ck_assert_str_eq(mosld_chat_template_name(&t), name);
        ck_assert_msg(mosld_chat_render(&t, messages, n, &params, &text, &err) == RT_OK, "%s", err.text);
        ck_assert_str_eq(text.text, cJSON_GetObjectItem(row, "text")->valuestring);
        ck_assert_uint_eq(text.len, strlen(text.text));
        check_ranges(&text, answers);
        mosld_chat_text_finish(&text);
        cJSON_Delete(row);
        rows++;
    }
    free(data);
    ck_assert_uint_gt(rows, 90);
}
END_TEST

/* Fragments with what tells the families apart; real templates are longer. */
static const struct {
    const char *jinja, *name, *system;
    bool bos_first;
} known[] = {
    {"{{ '<|im_start|>' + role + '\\n' + content + '<|im_end|>' }}", "chatml", "", false},
    {"{{ bos_token }}{{ '<|im_start|>' + role + '\\n' + content + '<|im_end|>' }}", "chatml", "", true},
    {"{{ '<|im_start|>system\n" /* a real line break, as GGUF files have it */
     "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}<|im_start|>",
     "smollm2", "You are a helpful AI assistant named SmolLM, trained by Hugging Face", false},
    {"{{ '<|im_start|>system\\n' + messages[0].content + '<|im_end|>' }}{{ '<|im_start|>system\\nYou are Qwen, created "
     "by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}",
     "qwen2.5", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", false},
    {"{{ \"<|im_start|>system\\nI'm a pirate.<|im_end|>\\n\" }}", "chatml", "I'm a pirate.", false},
    {"ns.last_query_index '<|im_start|>' '<|im_end|>' enable_thinking '<think>'", "qwen3", "", false},
    {"'<|start_header_id|>' '<|eot_id|>'", "llama3", "", false},
    {"'<|start_header_id|>' '<|eot_id|>' \"Cutting Knowledge Date: December 2023\\n\"", "llama3.1", "", false},
    {"'[INST] ' '<<SYS>>\\n' ' [/INST]'", "llama2", "", false},
    {"' [INST] ' + content + ' [/INST]'", "mistral-v1", "", false},
    {"\"[INST] \" + content + \"[/INST]\"", "mistral-v3", "", false},
    {"'[INST] ' + content + ' [/INST]' eos_token", "mistral-classic", "", false},
    {"'[INST] ' + content + ' [/INST]' eos_token + ' '", "mistral-classic-space", "", false},
    {"'<|user|>\\n' '<|system|>\\n' '<|assistant|>\\n' eos_token", "zephyr", "", false},
};

START_TEST(templates_are_recognised)
{
    struct mosld_chat_template t;
    struct rt_error err = {0};
    ck_assert_msg(mosld_chat_template_recognise(known[_i].jinja, &t, &err) == RT_OK, "%s", err.text);
    ck_assert_str_eq(mosld_chat_template_name(&t), known[_i].name);
    ck_assert_str_eq(t.default_system, known[_i].system);
    ck_assert_int_eq(t.bos_first, known[_i].bos_first);
}
END_TEST

static const struct {
    const char *jinja, *says;
} foreign[] = {
    {"{{ bos_token }}<start_of_turn>user", "Gemma"},
    {"'<|user|>\\n' '<|system|>\\n' '<|assistant|>\\n' eos_token '<|end|>'", "Phi"},
    {"'[SYSTEM_PROMPT]' '[INST]'", "Mistral's v7"},
    {"'<|im_start|>' '<|im_end|>' '<think>'", "begins"},    /* thinks, and has no switch */
    {"'<|im_start|>' content|trim '<|im_end|>'", "begins"}, /* trims */
    {"'[INST]' + content + '[/INST]'", "begins"},           /* no spaces: Tekken's */
    {"'<|im_start|>' '<|im_end|>' '## Metadata'", "SmolLM3"},
    {"{% for i in range(999999999) %}{% endfor %}", "range(999999999)"}, /* nothing runs, so nothing can hang */
    {"", "begins"},
};

START_TEST(others_are_refused_by_name)
{
    struct mosld_chat_template t;
    struct rt_error err = {0};
    ck_assert_int_eq(mosld_chat_template_recognise(foreign[_i].jinja, &t, &err), RT_BAD_FILE);
    ck_assert_msg(strstr(err.text, foreign[_i].says) && strstr(err.text, "--chat-template"), "%s", err.text);
}
END_TEST

START_TEST(unknown_name)
{
    struct mosld_chat_template t;
    struct rt_error err = {0};
    ck_assert_int_eq(mosld_chat_template_by_name("gpt-9", &t, &err), RT_USAGE);
    ck_assert(strstr(err.text, "gpt-9") && strstr(err.text, "zephyr"));
}
END_TEST

static const struct {
    const char *template, *roles; /* a letter a message */
    const char *says;
} bad[] = {
    {"chatml", "", "no messages"},
    {"chatml", "au", "message 1"},
    {"llama3", "sau", "message 2"},
    {"chatml", "uat", "'tool'"},
    {"chatml", "s", "no user"},
    {"llama2", "uu", "take turns"},
    {"llama2", "suaau", "messages 3 and 4"},
    {"mistral", "usu", "message 2"},
    {"mistral-classic", "su", "system"},
    {"zephyr", "a", "message 1"},
    {"chatml", "u-", "no content"},
    {"chatml", "u?", "no role"},
};

START_TEST(bad_conversations)
{
    struct mosld_chat_message messages[MAX_MESSAGES];
    struct mosld_chat_template t;
    struct mosld_chat_text text;
    struct rt_error err = {0};
    size_t n = strlen(bad[_i].roles);
    for (size_t i = 0; i < n; i++) {
        char c = bad[_i].roles[i];
        messages[i].role = c == 's' ? "system" : c == 'a' ? "assistant" : c == 't' ? "tool" : c == '?' ? NULL : "user";
        messages[i].content = c == '-' ? NULL : "x";
    }
    ck_assert_int_eq(mosld_chat_template_by_name(bad[_i].template, &t, &err), RT_OK);
    ck_assert_int_eq(mosld_chat_render(&t, messages, n, NULL, &text, &err), RT_BAD_FILE);
    ck_assert_msg(strstr(err.text, bad[_i].says), "%s", err.text);
    ck_assert_ptr_null(text.text);
}
END_TEST

/* The parts that bear loss, with | between them. */
static void check_loss(const char *template, const struct mosld_chat_message *messages, size_t n, const char *want)
{
    struct mosld_chat_template t;
    struct mosld_chat_text text;
    struct rt_error err = {0};
    char got[256] = "";
    ck_assert_int_eq(mosld_chat_template_by_name(template, &t, &err), RT_OK);
    ck_assert_int_eq(mosld_chat_render(&t, messages, n, NULL, &text, &err), RT_OK);
    for (size_t i = 0; i < text.loss_count; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%.*s", i ? "|" : "",
                 (int)(text.loss[i].end - text.loss[i].start), text.text + text.loss[i].start);
    ck_assert_str_eq(got, want);
    mosld_chat_text_finish(&text);
}

START_TEST(answers_bear_loss_with_their_end)
{
    const struct mosld_chat_message m[] = {{"user", "q"}, {"assistant", "one"}, {"user", "r"}, {"assistant", "two"}};
    check_loss("chatml", m, 4, "one<|im_end|>|two<|im_end|>");
    check_loss("llama3", m, 4, "one<|eot_id|>|two<|eot_id|>");
    check_loss("llama2", m, 4, " one </s>| two </s>");
    check_loss("mistral-v3", m, 4, " one</s>| two</s>");
    check_loss("mistral-classic-space", m, 4, "one</s>|two</s>");
    check_loss("zephyr", m, 4, "one</s>|two</s>");
    check_loss("qwen3", m, 4, "one<|im_end|>|<think>\n\n</think>\n\ntwo<|im_end|>");
    check_loss("chatml", m, 3, "one<|im_end|>");
    check_loss("chatml", m, 1, "");
}
END_TEST

START_TEST(broken_content_becomes_valid)
{
    const struct mosld_chat_message m[] = {{"user", "a\xFF"
                                                    "b"}};
    struct mosld_chat_template t;
    struct mosld_chat_text text;
    struct rt_error err = {0};
    ck_assert_int_eq(mosld_chat_template_by_name("chatml", &t, &err), RT_OK);
    ck_assert_int_eq(mosld_chat_render(&t, m, 1, NULL, &text, &err), RT_OK);
    ck_assert_str_eq(text.text, "<|im_start|>user\na\xEF\xBF\xBD"
                                "b<|im_end|>\n");
    mosld_chat_text_finish(&text);
}
END_TEST

START_TEST(encoding_marks_the_answers)
{
    /* "\n\n" merges over the border of prompt and answer: the token then belongs to the answer. */
    static const char *const merges[] = {"\xC4\x8A \xC4\x8A", NULL};
    struct mosld_tokenizer *t = open_recipe(
        &(struct tokenizer_recipe){.merges = merges,
                                   .added_tokens = "[{\"id\":257,\"content\":\"<|im_start|>\",\"special\":true},"
                                                   "{\"id\":258,\"content\":\"<|im_end|>\",\"special\":true}]"});
    const struct mosld_chat_message m[] = {
        {"user", "<|im_end|>"}, {"assistant", "hi"}, {"user", ""}, {"assistant", "\n\nx"}};
    static const char want[] = "257 117 115 101 114 10 60 124 105 109 95 101 110 100 124 62 258 10 "
                               "257 97 115 115 105 115 116 97 110 116 10 [104 105 258] 10 "
                               "257 117 115 101 114 10 258 10 "
                               "257 97 115 115 105 115 116 97 110 116 [256 10 120 258] 10 ";
    struct mosld_chat_template chatml;
    struct mosld_chat_text text;
    struct rt_error err = {0};
    int32_t *ids;
    uint8_t *loss;
    size_t count;
    char got[512] = "";
    ck_assert_int_eq(mosld_chat_template_by_name("chatml", &chatml, &err), RT_OK);
    ck_assert_int_eq(mosld_chat_render(&chatml, m, 4, NULL, &text, &err), RT_OK);
    ck_assert_int_eq(mosld_chat_encode(t, &text, &ids, &loss, &count, &err), RT_OK);
    for (size_t i = 0; i < count; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%d%s ", loss[i] && !loss[i - 1] ? "[" : "", ids[i],
                 loss[i] && (i + 1 == count || !loss[i + 1]) ? "]" : "");
    ck_assert_str_eq(got, want);
    free(ids);
    free(loss);
    mosld_chat_text_finish(&text);
    mosld_tokenizer_close(t);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("chat");
    TCase *tc = tcase_create("chat");
    tcase_add_test(tc, rendering_agrees_with_jinja);
    tcase_add_loop_test(tc, templates_are_recognised, 0, sizeof known / sizeof *known);
    tcase_add_loop_test(tc, others_are_refused_by_name, 0, sizeof foreign / sizeof *foreign);
    tcase_add_test(tc, unknown_name);
    tcase_add_loop_test(tc, bad_conversations, 0, sizeof bad / sizeof *bad);
    tcase_add_test(tc, answers_bear_loss_with_their_end);
    tcase_add_test(tc, broken_content_becomes_valid);
    tcase_add_test(tc, encoding_marks_the_answers);
    suite_add_tcase(s, tc);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
