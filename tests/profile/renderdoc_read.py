#!/usr/bin/python3
"""Reads a RenderDoc capture of one training step of mosld and prints what it holds as JSON, for tests/profile/tools.sh.

    /usr/bin/python3 tests/profile/renderdoc_read.py CAPTURE.rdc GRADIENTS.safetensors

python3-renderdoc (1.24 was used) is a module of the system's Python. Checked here, with a message and exit status 1 where it fails:
the tree step / layer / forward or backward / module / op / kernel, the names of pipelines and buffers, and that the gradient vector which the
optimizer's kernel reads has the bytes that the engine wrote of it (--dump-gradients): B of the first module.
"""
import json
import re
import struct
import sys

import renderdoc as rd


def fail(text):
    sys.exit("renderdoc_read.py: " + text)


def open_capture(path):
    rd.InitialiseReplay(rd.GlobalEnvironment(), [])
    file = rd.OpenCaptureFile()
    status = file.OpenFile(path, "", None)
    if status != rd.ResultCode.Succeeded:
        fail(f"{path}: {status}")
    status, controller = file.OpenCapture(rd.ReplayOptions(), None)
    if status != rd.ResultCode.Succeeded:
        fail(f"{path} does not replay: {status}")
    return controller


def walk(actions, structured, path, out, tensors_bound):
    for a in actions:
        if a.flags & rd.ActionFlags.SetMarker:
            tensors_bound.update(part.split(": ", 1)[1] for part in a.GetName(structured).split(", ") if ": " in part)
        here = path + [a.GetName(structured)]
        if a.flags & rd.ActionFlags.Dispatch:
            out.append((a.eventId, path))
        walk(a.children, structured, here, out, tensors_bound)


def tensors(path):
    with open(path, "rb") as f:
        data = f.read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    return {k: (v["shape"], data[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]])
            for k, v in header.items() if k != "__metadata__"}


def stacked_b(gradients):
    """[B_0 | B_1 | ...] of the first module, row by row: so the experts lie in the gradient vector."""
    first = sorted(k for k in gradients if ".lora_B." in k)[0]
    stem = first[:first.index(".lora_B.")]
    experts = sorted((k for k in gradients if k.startswith(stem + ".lora_B.")), key=lambda k: int(re.search(r"lora_B\.(\d+)", k).group(1)))
    rows, cols = gradients[first][0]
    return stem, b"".join(gradients[e][1][4 * r * cols:4 * (r + 1) * cols] for r in range(rows) for e in experts)


def main(capture, gradients_path):
    controller = open_capture(capture)
    dispatches, tensors_bound = [], set()
    names = {r.resourceId: r.name for r in controller.GetResources()}
    walk(controller.GetRootActions(), controller.GetStructuredFile(), [], dispatches, tensors_bound)
    if not dispatches:
        fail("the capture has no dispatch")
    steps, layers, phases, modules, ops, kernels, buffers = (set() for _ in range(7))
    update = None
    for event, path in dispatches:
        controller.SetFrameEvent(event, False)
        state = controller.GetVulkanPipelineState()
        name = names[state.compute.pipelineResourceId]
        kernels.add(name)
        if name != path[-1]:
            fail(f"event {event}: the pipeline is called {name}, and its label {path[-1]}")
        scopes = [p for p in path if not p.startswith("submission ")]
        if not re.fullmatch(r"step \d+", scopes[0]):
            fail(f"event {event} stands in {' / '.join(path)}, not in a step")
        steps.add(scopes[0])
        if re.fullmatch(r"layer \d+", scopes[1]):
            layers.add(scopes[1])
            phases.add(scopes[2])
            modules.update(scopes[3:-2])
        ops.add(scopes[-2])
        for b in state.compute.descriptorSets[0].bindings:
            buffers.add(names[b.binds[0].resourceResourceId])
        if name.startswith("adamw"):
            update = event
    if update is None:
        fail("no adamw among the kernels: " + ", ".join(sorted(kernels)))
    stem, want = stacked_b(tensors(gradients_path))
    if not any(want):
        fail(f"the gradient of {stem} is zero: it proves nothing")
    controller.SetFrameEvent(update, False)
    found = []
    for i, b in enumerate(controller.GetVulkanPipelineState().compute.descriptorSets[0].bindings):
        bound = b.binds[0]
        if want in bytes(controller.GetBufferData(bound.resourceResourceId, bound.byteOffset, bound.byteSize)):
            found.append(i)
    if len(found) != 1:
        fail(f"the gradient of B of {stem} was looked for in what adamw binds, and found in bindings {found}")
    controller.Shutdown()
    rd.ShutdownReplay()
    print(json.dumps({"dispatches": len(dispatches), "steps": sorted(steps), "layers": sorted(layers), "phases": sorted(phases), "modules": sorted(modules), "ops": sorted(ops),
                      "kernels": sorted(kernels), "buffers": sorted(buffers), "tensors": sorted(tensors_bound), "example": dispatches[len(dispatches) // 2][1],
                      "gradient_found_in_binding": found[0], "gradient_bytes": len(want)}, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
