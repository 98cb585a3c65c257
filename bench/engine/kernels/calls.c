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

// The inner loop of a bytecode interpreter: a jump table.
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

// Runs a program of so many random instructions again and again, 20 million in all.
static uint64_t run_bytecode(size_t length)
{
    uint8_t *code = need_memory(length);
    uint64_t state = 3, sum = 1;

    for (size_t i = 0; i < length; i++)
        code[i] = (uint8_t)(next_random(&state) % OPCODES);
    for (size_t round = 0; round < 20000000 / length; round++)
        sum = interpret(code, length, sum);
    free(code);
    return sum;
}

// So short that a processor learns by heart which instruction follows which.
uint64_t dispatch(void)
{
    return run_bytecode(1000);
}

// So long that it does not: most jumps are guessed wrong, on any engine.
uint64_t dispatch_long(void)
{
    return run_bytecode(4000);
}
