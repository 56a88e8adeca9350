/* shaders/step.h - the small block of what changes from step to step, in device memory, so that recorded work can be replayed
 * as it is. The program writes the first part before a step, kernels write the second. Words, in this order. */
#ifndef MOSLD_STEP_H
#define MOSLD_STEP_H

/* written by the program */
#define STEP_LR 0            /* float: learning rate of this step */
#define STEP_BIAS1 1         /* float: 1 - beta1^t */
#define STEP_BIAS2 2         /* float: 1 - beta2^t */
#define STEP_MAX_NORM 3      /* float: clip the gradient to this norm; 0: never */
#define STEP_SEED_LO 4       /* uint: the run's seed, the Philox key */
#define STEP_SEED_HI 5
#define STEP_MICRO 6         /* uint: index of the micro-step in the whole run */
#define STEP_DROPOUT 7       /* float: p of this pass; 0: none */
/* written by op_grad_norm */
#define STEP_GRAD_NORM 8     /* float: norm of all gradients before clipping */
#define STEP_CLIP 9          /* float: what gradients are multiplied by */
#define STEP_SKIP 10         /* uint: 1 when the gradient is not finite: the optimizer then changes nothing */
#define STEP_WORDS 64

#endif
