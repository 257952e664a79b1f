/* Hides features of the processor from a program, so that it takes the kernels of a lesser one.
 *
 *     gcc -O1 -shared -fPIC -o hide.so hide_cpu_features.c
 *     CPU_CLASS=avx2 LD_PRELOAD=./hide.so python ...
 *
 * CPU_CLASS: avx512_vnni (no AMX), avx512 (no VNNI either), avx_vnni (no AVX512), avx2. Linux on x86 with CPUID faulting
 * (cpuid_fault in /proc/cpuinfo): the instruction then raises SIGSEGV, and the handler answers in its place.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include <cpuid.h>
#define ARCH_CPUID_SET 0x1012
static uint32_t m7b, m7c, m7d, m71a; /* bits to clear of leaf 7: EBX, ECX, EDX, and EAX of its first subleaf */
static void onsegv(int s, siginfo_t *i, void *c) {
  ucontext_t *u = c; greg_t *g = u->uc_mcontext.gregs;
  uint8_t *ip = (uint8_t *)g[REG_RIP];
  if (ip[0] != 0x0f || ip[1] != 0xa2) { signal(SIGSEGV, SIG_DFL); return; } /* a real one: again, and fatal */
  uint32_t l = g[REG_RAX], n = g[REG_RCX], a, b, cc, d;
  syscall(SYS_arch_prctl, ARCH_CPUID_SET, 1);
  __cpuid_count(l, n, a, b, cc, d);
  syscall(SYS_arch_prctl, ARCH_CPUID_SET, 0);
  if (l == 7 && n == 0) { b &= ~m7b; cc &= ~m7c; d &= ~m7d; }
  if (l == 7 && n == 1) { a &= ~m71a; }
  g[REG_RAX] = a; g[REG_RBX] = b; g[REG_RCX] = cc; g[REG_RDX] = d; g[REG_RIP] += 2;
}
__attribute__((constructor(101))) static void go(void) {
  const char *e = getenv("CPU_CLASS"); if (!e) return;
  uint32_t amx = (1u<<22)|(1u<<24)|(1u<<25);
  m7d = amx; m71a = (1u<<21) /* amx_fp16 */;
  if (strcmp(e, "avx512_vnni")) { /* below: no vnni */
    m7c |= 1u<<11; m71a |= (1u<<4)|(1u<<5); /* avx512_vnni; avx_vnni, avx512_bf16 */
    if (strcmp(e, "avx512")) { /* avx2 or avx_vnni: no avx512 at all */
      m7b |= (1u<<16)|(1u<<17)|(1u<<21)|(1u<<28)|(1u<<30)|(1u<<31);
      m7c |= (1u<<1)|(1u<<6)|(1u<<12)|(1u<<14); m7d |= (1u<<23)|(1u<<8);
      if (!strcmp(e, "avx_vnni")) m71a &= ~(1u<<4);
    }
  }
  struct sigaction sa; memset(&sa, 0, sizeof sa); sa.sa_sigaction = onsegv; sa.sa_flags = SA_SIGINFO|SA_NODEFER|SA_ONSTACK;
  sigaction(SIGSEGV, &sa, 0);
  if (syscall(SYS_arch_prctl, ARCH_CPUID_SET, 0)) perror("cpuid faulting");
}
