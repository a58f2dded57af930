// Threads that share the work of one operation.

#pragma once

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "glibc.h"
#include "memory.h"

namespace xcit {

// OMP_NUM_THREADS is not asked: MindSpore sets it to 1 for its own reasons.
inline int64_t available_cores() {
  cpu_set_t cores;
  return sched_getaffinity(0, sizeof cores, &cores) == 0 ? std::max(1, CPU_COUNT(&cores)) : 1;
}

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// As many threads as cores, the caller's among them. They sleep between jobs: MindSpore's own threads need the cores then.
class Team {
 public:
  static Team& instance() {
    static Team team;  // constant from the start, and never destroyed: its threads outlive static storage
    return team;
  }

  int64_t size() {
    int64_t size = size_.load(std::memory_order_relaxed);
    if (!size) size_.store(size = available_cores(), std::memory_order_relaxed);
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

  void start() {
    if (started_) return;
    started_ = true;
    for (int64_t worker = 1; worker < size(); ++worker) {
      pthread_t thread;
      // Where there may be no more threads, those that are there do all.
      if (pthread_create(&thread, nullptr, [](void* team) { return static_cast<Team*>(team)->serve(); }, this) != 0) break;
    }
  }

  void run(const Round& round) {
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
      spin < kPatience ? relax() : static_cast<void>(sched_yield());  // others may want this core, that worker among them
    }
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

  void* serve() {
    for (int64_t seen = 0;;) {
      // The next job often comes at once; waking up takes longer than that.
      for (int spin = 0; spin < kPatience && number_.load(std::memory_order_acquire) == seen; ++spin) relax();
      pthread_mutex_lock(&mutex_);
      while (number_.load(std::memory_order_relaxed) == seen) pthread_cond_wait(&wake_, &mutex_);
      seen = number_.load(std::memory_order_relaxed);
      const bool joins = open_;
      if (joins) inside_.fetch_add(1, std::memory_order_relaxed);
      pthread_mutex_unlock(&mutex_);
      if (!joins) continue;
      work();
      inside_.fetch_sub(1, std::memory_order_release);
    }
    return nullptr;
  }

  static constexpr int kPatience = 2000;  // about 50 µs
  static inline thread_local bool working_ = false;

  std::atomic<int64_t> size_{0};
  std::atomic<bool> turn_{false};  // whose it is may use what follows
  bool started_ = false;
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
