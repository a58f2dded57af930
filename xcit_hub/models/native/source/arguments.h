// What MindSpore hands to an operation.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace xcit {

using std::int64_t;

struct Arguments {
  void** data;
  int* ranks;
  int64_t** shapes;

  float* floats(int index) const { return static_cast<float*>(data[index]); }
  int64_t dim(int index, int axis) const { return shapes[index][axis < 0 ? axis + ranks[index] : axis]; }
  int64_t size(int index) const {
    int64_t product = 1;
    for (int axis = 0; axis < ranks[index]; ++axis) product *= shapes[index][axis];
    return product;
  }
};

constexpr int kWrongType = 1;

// MindSpore may cast an operand on its way here (mixed precision does): numbers of another width must not be read as these.
inline bool readable(int count, const char** types) {
  return std::all_of(types, types + count, [](const char* type) {
    return std::strcmp(type, "float32") == 0 || std::strcmp(type, "int32") == 0;
  });
}

}  // namespace xcit

#define XCIT_OPERATION(name, ...)                                                                                 \
  extern "C" __attribute__((visibility("default")))                                                               \
  int name(int count, void** data, int* ranks, int64_t** shapes, const char** types, void*, void*) {              \
    if (!readable(count, types)) return kWrongType;                                                               \
    const Arguments a{data, ranks, shapes};                                                                       \
    __VA_ARGS__;                                                                                                  \
    return 0;                                                                                                     \
  }
