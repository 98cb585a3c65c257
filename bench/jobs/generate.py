# Prints a C program of so many lines (the argument), the same in each run: functions of arithmetic, arrays and loops.
import sys

state = 1


def below(n):
    global state
    state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
    return (state >> 33) % n


def statement(earlier):
    """One or two lines."""
    kind = below(5)
    if kind == 0:
        return f"    for (unsigned i = 0; i < {1 + below(30)}; i++)\n        c += memory[(a + i) % 64] * {1 + below(99)};"
    if kind == 1:
        return f"    c = (c << {1 + below(20)}) + (b >> {below(30)}) - {below(100)};"
    if kind == 2:
        return f"    if (c % {2 + below(9)} == {below(2)})\n        memory[c % 64] ^= b + {below(500)};"
    if kind == 3 and earlier and below(8) == 0:
        return f"    if (a == {below(100)})\n        c ^= f{below(earlier)}(b, {below(100)});"
    return f"    memory[{below(64)}] += c / {1 + below(40)};"


wanted = int(sys.argv[1])
lines = ["#include <stdio.h>", "static unsigned long memory[64];"]
functions = 0
while len(lines) < wanted - 40:
    lines += [f"unsigned long f{functions}(unsigned long a, unsigned long b)", "{", f"    unsigned long c = a ^ {below(1000)};"]
    for _ in range(4 + below(12)):
        lines += statement(functions).split("\n")
    lines += ["    return c + b;", "}"]
    functions += 1
lines += ["int main(void)", "{", "    unsigned long sum = 0;"]
while len(lines) < wanted - 3:
    lines.append(f"    sum += f{below(functions)}({below(1000)}, {below(1000)});")
lines += ['    printf("%lu\\n", sum);', "    return 0;", "}"]
print("\n".join(lines))
