// Memory: buffers of one call, and workspaces that outlive it.
//
// Nothing here or elsewhere needs the C++ runtime library: its newest version asks for a newer system than many hosts have.

#pragma once

#include <pthread.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "glibc.h"

namespace xcit {

using std::int64_t;

// Zeros if `cleared`. Nothing can be computed without, and no caller could do better than to end.
inline float* allocate(int64_t floats, bool cleared) {
  const std::size_t count = static_cast<std::size_t>(floats > 0 ? floats : 1);
  void* memory = cleared ? std::calloc(count, sizeof(float)) : std::malloc(count * sizeof(float));
  if (!memory) {
    std::fprintf(stderr, "xcit-hub: out of memory, %lld bytes more were needed\n", static_cast<long long>(count * sizeof(float)));
    std::abort();
  }
  return static_cast<float*>(memory);
}

// Floats that live as long as this.
class Buffer {
 public:
  explicit Buffer(int64_t floats, bool cleared = false) : data_(allocate(floats, cleared)) {}
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  operator float*() const { return data_; }

 private:
  float* data_;
};

// What a thread's workspaces are used for: one for each use that may be open at the same time.
enum class Use { kPackedA, kPackedB, kWeights, kBandIn, kBandOut, kUp, kNormed, kActive, kPassed, kUses };

struct Workspaces {
  float* data[static_cast<int>(Use::kUses)];
  int64_t sizes[static_cast<int>(Use::kUses)];

  static void release(void* all) {
    for (float* data : static_cast<Workspaces*>(all)->data) std::free(data);
    std::free(all);
  }
};

// The threads' workspaces by a key, so that those of a thread go with it.
inline pthread_key_t workspaces_key;
__attribute__((constructor)) inline void make_workspaces_key() {
  if (pthread_key_create(&workspaces_key, Workspaces::release) != 0) std::abort();
}

inline Workspaces& workspaces() {
  static thread_local Workspaces* mine = nullptr;
  if (!mine) {
    mine = static_cast<Workspaces*>(std::calloc(1, sizeof(Workspaces)));
    if (!mine || pthread_setspecific(workspaces_key, mine) != 0) std::abort();
  }
  return *mine;
}

// At least so many floats of this thread, the same at every call: fresh memory would be cleared page by page each time.
inline float* workspace(Use use, int64_t floats) {
  Workspaces& mine = workspaces();
  float*& data = mine.data[static_cast<int>(use)];
  int64_t& size = mine.sizes[static_cast<int>(use)];
  if (size < floats) {
    std::free(data);
    data = allocate(floats, false);
    size = floats;
  }
  return data;
}

}  // namespace xcit
