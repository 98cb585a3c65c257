// The context of a block, shared by runtime.S and runtime.c.
#pragma once

#define CONTEXT_F 256
#define CONTEXT_FCSR 512
#define CONTEXT_PC 520
#define CONTEXT_SSTATUS 528
#define CONTEXT_SATP 536
#define CONTEXT_SCAUSE 544
#define CONTEXT_STVAL 552
#define CONTEXT_SIE 560
#define CONTEXT_SIP 568
#define CONTEXT_SP 576
#define CONTEXT_S11 584
#define CONTEXT_ADDRESS 592
