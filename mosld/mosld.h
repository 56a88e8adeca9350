/* mosld/mosld.h - the library, in one include: what a program needs to train, score and run models with MoSLD adapters.
 *
 * The layers, each knowing only those below it:
 *
 *     train/trainer.h, eval/score.h, generate/generate.h    a run, scores, text
 *     model/pass.h, adapter/adapter_file.h, data/task.h     tokens through model and adapter; adapters on disk; task files
 *     text/tokenizer.h, text/chat.h                         text to tokens and back
 *     model/model.h, model/model_file.h                     weights on a device; models on disk
 *     runtime/rt.h                                          devices
 *
 * A model and its output, in short (checks left out; every function returns a status and fills an error):
 *
 *     rt_device_open(NULL, &dev, &err);                                    // the best GPU, else the host
 *     mosld_model_file_open("model.gguf", &file, &err);
 *     mosld_model_create(dev, file, 512, MOSLD_WEIGHTS_AS_FILE, &model, &err);
 *     mosld_pass_create(model, NULL, &(struct mosld_pass_params){.max_tokens = 64, .max_targets = 1, .cache_tokens = 512}, &pass, &err);
 *     mosld_pass_commit(pass, &err);
 *     mosld_model_load(model, file, &err);
 *     mosld_generate(pass, prompt, n, &params, on_token, user, &result, &err);
 *
 * and then destroyed in the reverse order. One thread at a time uses a device and what was made on it. */
#ifndef MOSLD_H
#define MOSLD_H

#include "mosld/adapter/adapter_file.h"
#include "mosld/data/task.h"
#include "mosld/eval/score.h"
#include "mosld/generate/generate.h"
#include "mosld/model/model.h"
#include "mosld/model/model_file.h"
#include "mosld/model/pass.h"
#include "mosld/text/chat.h"
#include "mosld/text/tokenizer.h"
#include "mosld/train/trainer.h"
#include "runtime/rt.h"

#endif
