#!/usr/bin/env python3
"""tools/instruction_mix.py - how much of a kernel's loop is multiply-adds, from what AMD's compiler made of it.

    RADV_FORCE_FAMILY=navi31 build/mosld kernels --compile-only --assembly matmul_nt_tile.q4_0 | python3 tools/instruction_mix.py

Reads the assembly of Mesa's RADV. For the loop with the most multiply-adds, and the cheapest way around it (by vector instructions: in
the products that is a whole tile, read without tests), it counts vector instructions, multiply-adds (dot products and matrix instructions
too), and accesses to shared and to device memory. A loop inside of it counts --inner times (default 4, the turns of the products' inner loop)."""
import argparse
import re
import sys

MULTIPLY_ADD = re.compile(r"v_(dual_)?(fma|fmac|mac|mad_f|mad_mix|pk_fma|pk_mad|dot|wmma)")


def blocks_of(text):
    """[(name, [instructions])] of the last listing in the text."""
    blocks = []
    for line in text.splitlines():
        if line.startswith("BB0:"):
            blocks = []
        head = re.match(r"(BB\d+):", line)
        if head:
            blocks.append((head.group(1), []))
        elif blocks and re.match(r"\s+[a-z]\w+", line):
            blocks[-1][1].append(line.split(";")[0].strip())
    return blocks


def cost(instructions):
    count = {"vector": 0, "multiply-adds": 0, "shared": 0, "memory": 0}
    for line in instructions:
        for op in re.findall(r"v_dual_\w+", line) or [line.split()[0]]:
            count["vector"] += op.startswith("v_")
            count["multiply-adds"] += bool(MULTIPLY_ADD.match(op))
        count["shared"] += line.startswith("ds_")
        count["memory"] += line.startswith(("buffer_", "global_"))
    return count


def successors(blocks, index, i):
    """Blocks after block i, and whether it may fall through."""
    # A jump over what no lane needs is not the way that counts.
    targets = [index[t] for line in blocks[i][1] if "branch" in line and "branch_exec" not in line for t in re.findall(r"BB\d+", line) if t in index]
    falls = not any(line.startswith(("s_branch", "s_endpgm")) for line in blocks[i][1])
    return targets + ([i + 1] if falls and i + 1 < len(blocks) else [])


def cheapest(first, last, costs, follow, times):
    """The blocks of the way from first to last with the fewest vector instructions: blocks stand in order, so one pass does."""
    best = {first: (costs[first]["vector"] * times[first], [first])}
    for i in range(first, last):
        for j in follow[i] if i in best else []:
            way = best[i][0] + costs[j]["vector"] * times[j]
            if i < j <= last and (j not in best or way < best[j][0]):
                best[j] = (way, best[i][1] + [j])
    return best.get(last, (0, []))[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inner", type=int, default=4)
    inner = parser.parse_args().inner
    blocks = blocks_of(sys.stdin.read())
    if not blocks:
        sys.exit("there is no assembly of RADV on standard input")
    index = {name: i for i, (name, _) in enumerate(blocks)}
    costs = [cost(instructions) for _, instructions in blocks]
    follow = [successors(blocks, index, i) for i in range(len(blocks))]
    loops = sorted((i - j, j, i) for i in range(len(blocks)) for j in follow[i] if j <= i)
    ways = []
    for _, first, last in loops:
        within = [(a, b) for _, a, b in loops if first <= a and b <= last and (a, b) != (first, last)]
        times = [inner if any(a <= i <= b for a, b in within) else 1 for i in range(len(blocks))]
        path = cheapest(first, last, costs, follow, times)
        total = {k: sum(costs[i][k] * times[i] for i in path) for k in costs[0]}
        ways.append((len(path), total))
    heavy = [w for w in ways if w[1]["multiply-adds"] >= 0.5 * max(x[1]["multiply-adds"] for x in ways)]
    # Of the loops that do the work, the largest whose way is not one over whole tiles again.
    _, total = min(heavy, key=lambda w: w[1]["vector"])
    if not total["vector"]:
        sys.exit("there is no loop with vector instructions")
    print(f"{total['vector']} vector instructions, {total['multiply-adds']} of them multiply-adds "
          f"({100 * total['multiply-adds'] / total['vector']:.0f} %), {total['shared']} shared, {total['memory']} memory")


if __name__ == "__main__":
    main()
