// Old names for what glibc 2.34 moved into libc under a new version: by its first version, systems before that have it, too.

#pragma once

#include <pthread.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define XCIT_SANITIZED  // sanitizers put themselves before the newest version
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define XCIT_SANITIZED
#endif

#if defined(__GLIBC__) && !defined(XCIT_SANITIZED)
#if defined(__x86_64__)
#define XCIT_FIRST_VERSION(name) __asm__(".symver " #name ", " #name "@GLIBC_2.2.5")
#elif defined(__aarch64__)
#define XCIT_FIRST_VERSION(name) __asm__(".symver " #name ", " #name "@GLIBC_2.17")
#endif
#endif

#ifdef XCIT_FIRST_VERSION
XCIT_FIRST_VERSION(pthread_create);
XCIT_FIRST_VERSION(pthread_getcpuclockid);
XCIT_FIRST_VERSION(pthread_key_create);
XCIT_FIRST_VERSION(pthread_setspecific);
#endif
