// A worker that is kept from its core while the caller waits for it sits out what follows, and comes back.
//
// Sleeping stands for a core that others use: it takes time and no processor time. Exits 1 if a promise is broken. With an
// argument it says how many threads there are, and how many of them took part in jobs.

#include <pthread.h>
#include <time.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>

#include "threads.h"

namespace {

using namespace xcit;

constexpr int64_t kMillisecond = 1'000'000, kAsleep = 30 * kMillisecond, kPatience = 60'000 * kMillisecond;

void sleep_for(int64_t time) {
  const timespec duration{0, time};
  nanosleep(&duration, nullptr);
}

// Which of the other threads slept last.
thread_local int64_t slept = 0;
int64_t job = 0;

// A job of many parts: how many others than the caller did, of those alone who slept in the job before if `late`. A part of the
// caller's takes a moment, so that others have time to come.
int64_t done_by_others(bool asleep, bool late = false) {
  const pthread_t caller = pthread_self();
  std::atomic<int64_t> others{0}, covered{0};
  ++job;
  Team::instance().split(64, 1, [&](int64_t first, int64_t last) {
    covered += last - first;
    if (pthread_equal(pthread_self(), caller)) {
      const int64_t began = nanoseconds(CLOCK_MONOTONIC);
      while (nanoseconds(CLOCK_MONOTONIC) - began < kMillisecond / 20) relax();
    } else {
      if (!late || slept == job - 1) others += 1;
      if (!asleep) return;
      sleep_for(kAsleep);
      slept = job;
    }
  });
  if (covered != 64) {
    std::printf("%lld of 64 items were done\n", static_cast<long long>(covered));
    std::exit(1);
  }
  return others;
}

// Until others take part.
void wait_for_others(bool asleep) {
  const int64_t began = nanoseconds(CLOCK_MONOTONIC);
  while (!done_by_others(asleep)) {
    if (nanoseconds(CLOCK_MONOTONIC) - began > kPatience) {
      std::puts("nobody came");
      std::exit(1);
    }
  }
}

}  // namespace

int main(int count, char**) {
  if (count > 1) {
    const int64_t size = Team::instance().size();
    if (size > 1) wait_for_others(false);
    return std::printf("%lld threads, others did %lld\n", static_cast<long long>(size), static_cast<long long>(done_by_others(false))), 0;
  }
  if (Team::instance().size() < 2) return std::puts("one core"), 0;
  wait_for_others(false);
  int64_t alone = 0;
  for (int round = 0; round < 5; ++round) {
    wait_for_others(true);
    const int64_t late_at = nanoseconds(CLOCK_MONOTONIC);
    const int64_t others = done_by_others(false, true), after = nanoseconds(CLOCK_MONOTONIC) - late_at;
    if (after > kAsleep / 2) continue;  // the machine is busy: it may have rested by then
    if (others) {
      std::printf("a late worker did %lld parts of the next job, %lld ns later\n", static_cast<long long>(others),
                  static_cast<long long>(after));
      return 1;
    }
    ++alone;
  }
  wait_for_others(false);
  std::printf("%lld of 5 next jobs were watched\n", static_cast<long long>(alone));
  return 0;
}
