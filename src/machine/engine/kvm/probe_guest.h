// The probe's guest (probe_guest.S) and who runs it (probe.c): where things lie in its memory, and what it tries. For C and the
// assembler.
#pragma once

#define PROBE_RAM_BYTES 0x40000
#define PROBE_RESULT 0x500 // struct probe_result
#define PROBE_CODE 0x1000  // the guest; it starts there in real mode
#define PROBE_PORT 0xf4    // written to at the end: 0, or 1 when the step that is reached failed

#define PROBE_CPUID_LEAF 0x40000000 // ebx is PROBE_CPUID_EBX, as no processor has it
#define PROBE_CPUID_EBX 0x74767274

// What is tried, in this order; what each is: step_names in probe.c.
#define PROBE_STEP_CPUID 0
#define PROBE_STEP_REAL 1
#define PROBE_STEP_PROTECTED 2
#define PROBE_STEP_LONG 3
#define PROBE_STEP_PRIVILEGE 4
#define PROBE_STEP_FLAGS 5
#define PROBE_STEP_TABLES 6
#define PROBE_STEP_EXCEPTION 7
#define PROBE_STEP_MSR 8
#define PROBE_STEP_FAULT 9
#define PROBE_STEP_PROTECT 10
#define PROBE_STEP_DIRTY 11
#define PROBE_STEP_SPACES 12
#define PROBE_STEP_FPU 13
#define PROBE_STEP_USER 14
#define PROBE_STEP_TSS 15
#define PROBE_STEP_GUARD 16
#define PROBE_STEP_APIC 17
#define PROBE_STEP_TIMER 18
#define PROBE_STEPS 19
