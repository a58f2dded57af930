// Threads that share the rows of one operation.

#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

namespace xcit {

using std::int64_t;

// OMP_NUM_THREADS is not asked: MindSpore sets it to 1 for its own reasons.
inline int64_t available_cores() {
#ifdef __linux__
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof cores, &cores) == 0) return std::max(1, CPU_COUNT(&cores));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// A team that sleeps between jobs: MindSpore's own threads need the cores then.
class Team {
 public:
  using Job = std::function<void(int64_t, int64_t)>;

  static Team& instance() {
    static Team* team = new Team(available_cores());  // never destroyed: its threads outlive static storage
    return *team;
  }

  int64_t size() const { return size_; }

  // Call job(first, last) for consecutive parts of [0, items), several at a time; return when all are done. Parts shrink to
  // `least`: the large ones are quick, the small ones let the threads end together.
  void split(int64_t items, int64_t least, const Job& job) {
    least = std::max<int64_t>(least, 1);
    if (items < 2 * least || size_ < 2 || working_) return job(0, items);
    std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
    if (!turn.owns_lock()) return job(0, items);
    const auto round = std::make_shared<Round>(job, items, least, 2 * size_, announced_.load() + 1);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      round_ = round;
      announced_ = round->number;
    }
    wake_.notify_all();
    round->work();
    for (int spin = 0; round->done.load(std::memory_order_acquire) < items; ++spin) {
      spin < kPatience ? relax() : std::this_thread::yield();  // others may want this core, that worker among them
    }
  }

 private:
  // A worker that wakes late finds nothing left and never touches the job, which is gone by then.
  struct Round {
    Round(const Job& job, int64_t items, int64_t least, int64_t shares, int64_t number)
        : job(job), items(items), least(least), shares(shares), number(number) {}

    void work() {
      working_ = true;
      for (int64_t first = next.load(); first < items;) {
        const int64_t left = items - first, count = left < 2 * least ? left : std::max(least, (left + shares - 1) / shares);
        if (!next.compare_exchange_weak(first, first + count)) continue;
        job(first, first + count);
        done.fetch_add(count, std::memory_order_release);
        first = next.load();
      }
      working_ = false;
    }

    const Job& job;
    const int64_t items, least, shares, number;
    std::atomic<int64_t> next{0}, done{0};
  };

  explicit Team(int64_t size) : size_(size) {
    for (int64_t worker = 1; worker < size; ++worker) std::thread([this] { serve(); }).detach();
  }

  void serve() {
    std::shared_ptr<Round> seen;
    for (int64_t count = 0;; count = seen->number) {
      // The next job often comes at once; waking up takes longer than that.
      for (int spin = 0; spin < kPatience && announced_.load(std::memory_order_relaxed) == count; ++spin) relax();
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return round_ && round_->number != count; });
        seen = round_;
      }
      seen->work();
    }
  }

  static constexpr int kPatience = 2000;  // about 50 µs
  static inline thread_local bool working_ = false;  // a job that splits its own work does it alone

  const int64_t size_;
  std::mutex turn_, mutex_;
  std::condition_variable wake_;
  std::shared_ptr<Round> round_;
  std::atomic<int64_t> announced_{0};  // the number of round_
};

constexpr int64_t kLeastNumbers = 8192;  // below, handing work to a thread costs more than it does
constexpr int64_t kLeastToWake = 524288;  // the same of a thread that sleeps, as all do between operations

inline void split_rows(int64_t rows, int64_t channels, const std::function<void(int64_t, int64_t)>& job,
                       int64_t least = kLeastNumbers) {
  Team::instance().split(rows, std::max<int64_t>(1, least / channels), job);
}

// Sums over all rows, in an order that does not depend on timing: job(first, last, sums) adds its rows to sums (width
// zeros), in blocks that the number of rows alone decides.
template <class Job>
void sum_rows(int64_t rows, int64_t width, float* total, const Job& job) {
  const int64_t blocks = std::max<int64_t>(1, std::min<int64_t>(64, rows / 32));
  std::vector<float> sums(blocks * width, 0.0f);
  Team::instance().split(blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      job(rows * block / blocks, rows * (block + 1) / blocks, &sums[block * width]);
    }
  });
  std::fill(total, total + width, 0.0f);
  for (int64_t block = 0; block < blocks; ++block) {
    for (int64_t c = 0; c < width; ++c) total[c] += sums[block * width + c];
  }
}

}  // namespace xcit
