// Threads that share the work of one operation.

#pragma once

#include <pthread.h>
#include <sched.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>

#include "glibc.h"
#include "memory.h"

namespace xcit {

constexpr int64_t kMostThreads = 1024;  // as many cores as cpu_set_t knows

// The number in XCIT_HUB_THREADS; without one, or where it is none (build.py refuses that), no limit. No strtol: a newer
// glibc has it under a new name.
inline int64_t most_threads() {
  const char* digit = std::getenv("XCIT_HUB_THREADS");
  int64_t number = 0;
  while (digit && *digit >= '0' && *digit <= '9' && number <= kMostThreads) number = 10 * number + (*digit++ - '0');
  return digit && !*digit && number >= 1 ? std::min(number, kMostThreads) : kMostThreads;
}

// As many as this process may use, and no more than it is asked to use. OMP_NUM_THREADS is not asked: MindSpore sets it to 1
// for its own reasons.
inline int64_t available_threads() {
  cpu_set_t cores;
  const int64_t available = sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
  return std::max<int64_t>(1, std::min(available, most_threads()));
}

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

inline int64_t nanoseconds(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return time.tv_sec * 1'000'000'000 + time.tv_nsec;
}

// As many threads as may be, the caller's among them. They sleep between jobs: MindSpore's own threads need the cores then.
// One that is kept from its core by others while everybody waits for it sits out the next jobs, the longer the more often
// that happens: waiting for it costs more than it does.
class Team {
 public:
  static Team& instance() {
    static Team team;  // constant from the start, and never destroyed: its threads outlive static storage
    return team;
  }

  int64_t size() {
    int64_t size = size_.load(std::memory_order_relaxed);
    if (!size) size_.store(size = available_threads(), std::memory_order_relaxed);
    return size;
  }

  // Call job(first, last) for consecutive parts of [0, items), several at a time; return when all are done. Parts shrink to
  // `least`: the large ones are quick, the small ones let the threads end together. A job that splits its own work does it
  // alone, and so does one that comes while another thread's is done.
  template <class Job>
  void split(int64_t items, int64_t least, const Job& job) {
    least = std::max<int64_t>(least, 1);
    if (items < 2 * least || size() < 2 || working_ || turn_.exchange(true, std::memory_order_acquire)) {
      return job(0, items);
    }
    start();
    if (!somebody_helps()) {
      turn_.store(false, std::memory_order_release);
      return job(0, items);
    }
    const auto call = [](const void* self, int64_t first, int64_t last) { (*static_cast<const Job*>(self))(first, last); };
    run({call, &job, items, least});
    turn_.store(false, std::memory_order_release);
  }

 private:
  struct Round {
    void (*call)(const void* job, int64_t first, int64_t last);
    const void* job;
    int64_t items, least;
  };

  // One thread beside the caller's.
  struct Worker {
    pthread_t thread;
    std::atomic<bool> inside;            // this round
    std::atomic<int64_t> left_at, rests_until;  // by the monotonic clock, in nanoseconds, as all times here
    int64_t rest, late_at, used_before;  // the last rest's length, when it began; processor time when the wait began, or kOnTime
  };

  void start() {
    if (started_) return;
    started_ = true;
    workers_ = static_cast<Worker*>(std::calloc(static_cast<std::size_t>(size() - 1), sizeof(Worker)));
    if (!workers_) return;
    for (; count_ < size() - 1; ++count_) {
      // Where there may be no more threads, those that are there do all.
      if (pthread_create(&workers_[count_].thread, nullptr, serve, &workers_[count_]) != 0) break;
    }
  }

  bool somebody_helps() {
    if (!all_rest_until_) return count_ > 0;
    const int64_t now = nanoseconds(CLOCK_MONOTONIC);
    if (now < all_rest_until_) return false;
    all_rest_until_ = 0;
    return true;
  }

  void run(const Round& round) {
    const int64_t begun = nanoseconds(CLOCK_MONOTONIC);
    pthread_mutex_lock(&mutex_);
    round_ = round;
    next_ = 0;
    open_ = true;
    number_.fetch_add(1, std::memory_order_release);
    pthread_mutex_unlock(&mutex_);
    pthread_cond_broadcast(&wake_);
    work();
    pthread_mutex_lock(&mutex_);
    open_ = false;  // who wakes later finds nothing to do: the job is about to go
    pthread_mutex_unlock(&mutex_);
    for (int spin = 0; inside_.load(std::memory_order_acquire); ++spin) {
      if (spin == kPatience) return wait(begun);
      relax();
    }
  }

  // Until all have left: others may want this core, workers among them. Who was not computing all the while was kept from its
  // own, and was no help if that took longer than the caller's part.
  void wait(int64_t begun) {
    for (Worker* worker = workers_; worker < workers_ + count_; ++worker) {
      worker->used_before = worker->inside.load(std::memory_order_relaxed) ? processor_time(*worker) : kOnTime;
    }
    const int64_t began = nanoseconds(CLOCK_MONOTONIC);
    for (bool all_left = false; !all_left;) {
      sched_yield();
      all_left = !inside_.load(std::memory_order_acquire);
      for (Worker* worker = workers_; worker < workers_ + count_; ++worker) {
        if (worker->used_before == kOnTime || worker->inside.load(std::memory_order_acquire)) continue;
        const int64_t used = processor_time(*worker) - worker->used_before;
        const int64_t lost = worker->left_at.load(std::memory_order_relaxed) - began - used;
        worker->used_before = kOnTime;
        if (lost > std::max(kLate, began - begun)) send_to_rest(*worker, nanoseconds(CLOCK_MONOTONIC), lost);
      }
    }
  }

  // For as long as was lost, or twice as long as the last time if that was not long ago.
  void send_to_rest(Worker& worker, int64_t now, int64_t lost) {
    const bool again = worker.late_at && now - worker.late_at < worker.rest + kForgotten;
    worker.rest = std::min(again ? std::max(2 * worker.rest, lost) : lost, kLongestRest);
    worker.late_at = now;
    worker.rests_until.store(now + worker.rest, std::memory_order_relaxed);
    all_rest_until_ = now + worker.rest;
    for (const Worker* each = workers_; each < workers_ + count_; ++each) {
      all_rest_until_ = std::min(all_rest_until_, each->rests_until.load(std::memory_order_relaxed));
    }
  }

  static int64_t processor_time(const Worker& worker) {
    clockid_t clock;
    return pthread_getcpuclockid(worker.thread, &clock) == 0 ? nanoseconds(clock) : 0;
  }

  void work() {
    working_ = true;
    const Round round = round_;
    const int64_t shares = 2 * size();
    for (int64_t first = next_.load(); first < round.items;) {
      const int64_t left = round.items - first;
      const int64_t count = left < 2 * round.least ? left : std::max(round.least, (left + shares - 1) / shares);
      if (!next_.compare_exchange_weak(first, first + count)) continue;
      round.call(round.job, first, first + count);
      first = next_.load();
    }
    working_ = false;
  }

  static void* serve(void* worker) { instance().serve(*static_cast<Worker*>(worker)); }

  [[noreturn]] void serve(Worker& self) {
    for (int64_t seen = 0;;) {
      // The next job often comes at once; waking up takes longer than that.
      for (int spin = 0; spin < kPatience && number_.load(std::memory_order_acquire) == seen; ++spin) relax();
      pthread_mutex_lock(&mutex_);
      while (number_.load(std::memory_order_relaxed) == seen) pthread_cond_wait(&wake_, &mutex_);
      seen = number_.load(std::memory_order_relaxed);
      const int64_t rests_until = self.rests_until.load(std::memory_order_relaxed);
      const bool joins = open_ && (!rests_until || rests_until < nanoseconds(CLOCK_MONOTONIC));
      if (joins) {
        self.inside.store(true, std::memory_order_relaxed);
        inside_.fetch_add(1, std::memory_order_relaxed);
      }
      pthread_mutex_unlock(&mutex_);
      if (!joins) continue;
      work();
      self.left_at.store(nanoseconds(CLOCK_MONOTONIC), std::memory_order_relaxed);
      self.inside.store(false, std::memory_order_release);
      inside_.fetch_sub(1, std::memory_order_release);
    }
  }

  static constexpr int kPatience = 2000;  // about 50 µs
  // Less than the system's shortest turn, and more than what it does itself now and then; twice that in a row is no accident.
  static constexpr int64_t kLate = 300'000, kForgotten = 200'000'000, kLongestRest = 64'000'000;
  static constexpr int64_t kOnTime = -1;
  static inline thread_local bool working_ = false;

  std::atomic<int64_t> size_{0};
  std::atomic<bool> turn_{false};  // whose it is may use what follows
  bool started_ = false;
  Worker* workers_ = nullptr;
  int64_t count_ = 0, all_rest_until_ = 0;  // of the workers; 0: one of them does not
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t wake_ = PTHREAD_COND_INITIALIZER;
  Round round_{};
  bool open_ = false;
  std::atomic<int64_t> number_{0};         // of rounds until now
  std::atomic<int64_t> next_{0}, inside_{0};  // the first item that nobody has taken; workers in this round
};

constexpr int64_t kLeastNumbers = 8192;  // below, handing work to a thread costs more than it does
constexpr int64_t kLeastToWake = 524288;  // the same of a thread that sleeps, as all do between operations

template <class Job>
void split_rows(int64_t rows, int64_t channels, const Job& job, int64_t least = kLeastNumbers) {
  Team::instance().split(rows, std::max<int64_t>(1, least / channels), job);
}

// Sums over all rows, in an order that does not depend on timing: job(first, last, sums) adds its rows to sums (width
// zeros), in blocks of `least` rows or more that the number of rows alone decides.
template <class Job>
void sum_rows(int64_t rows, int64_t width, float* total, const Job& job, int64_t least = 32) {
  const int64_t blocks = std::max<int64_t>(1, std::min<int64_t>(64, rows / least));
  const Buffer sums(blocks * width, true);
  Team::instance().split(blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      job(rows * block / blocks, rows * (block + 1) / blocks, sums + block * width);
    }
  });
  split_rows(width, blocks, [&](int64_t first, int64_t last) {
    std::fill(total + first, total + last, 0.0f);
    for (int64_t block = 0; block < blocks; ++block) {
#pragma omp simd
      for (int64_t c = first; c < last; ++c) total[c] += sums[block * width + c];
    }
  });
}

}  // namespace xcit
