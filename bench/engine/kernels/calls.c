// Calls and returns, and jumps whose target is known only when they happen.
#include "kernels.h"

#include <stdlib.h>

__attribute__((noinline)) static uint64_t fibonacci(unsigned n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

uint64_t fib(void)
{
    return fibonacci(36);
}

enum opcode { ADD, SUB, XOR, SHL, SHR, MUL, ROT, NOT, INC, SWAP, AND, OR, OPCODES };

// The inner loop of a bytecode interpreter: a jump table, and no telling which entry comes next.
static uint64_t interpret(const uint8_t *code, size_t length, uint64_t a)
{
    uint64_t b = 0x123456789abcdefu;

    for (size_t i = 0; i < length; i++)
        switch (code[i]) {
        case ADD:
            a += b;
            break;
        case SUB:
            a -= b;
            break;
        case XOR:
            a ^= b;
            break;
        case SHL:
            a = (a << 3) + 1;
            break;
        case SHR:
            a = (a >> 5) ^ b;
            break;
        case MUL:
            a *= 0x9e3779b97f4a7c15u;
            break;
        case ROT:
            b = (b >> 7) | (b << 57);
            break;
        case NOT:
            a = ~a;
            break;
        case INC:
            b++;
            break;
        case AND:
            b = (a & 0xff00ff00ff00ffu) + b;
            break;
        case OR:
            a |= b & 0xf0f0;
            break;
        case SWAP: {
            uint64_t old = a;

            a = b;
            b = old;
            break;
        }
        default:
            break;
        }
    return a ^ b;
}

uint64_t dispatch(void)
{
    enum { LENGTH = 1 << 12, ROUNDS = 5000 };
    uint8_t *code = need_memory(LENGTH);
    uint64_t state = 3, sum = 1;

    for (size_t i = 0; i < LENGTH; i++)
        code[i] = (uint8_t)(next_random(&state) % OPCODES);
    for (int round = 0; round < ROUNDS; round++)
        sum = interpret(code, LENGTH, sum);
    free(code);
    return sum;
}
