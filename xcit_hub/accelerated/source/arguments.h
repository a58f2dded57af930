// What MindSpore hands to an operation.

#pragma once

#include <cstdint>
#include <cstring>

namespace xcit {

using std::int64_t;

// The operands by their place, inputs first, then outputs; operands.h gives the places names.
struct Arguments {
  void** data;
  int* ranks;
  int64_t** shapes;

  float* floats(int index) const { return static_cast<float*>(data[index]); }
  std::int32_t* integers(int index) const { return static_cast<std::int32_t*>(data[index]); }
  int64_t dim(int index, int axis) const { return shapes[index][axis < 0 ? axis + ranks[index] : axis]; }
  int64_t size(int index) const {
    int64_t product = 1;
    for (int axis = 0; axis < ranks[index]; ++axis) product *= shapes[index][axis];
    return product;
  }
};

constexpr int kWrongType = 1;  // what an operation returns, and MindSpore reports

constexpr int kNone = -1;

// MindSpore may cast an operand on its way here (mixed precision does), or was given another one: numbers of another type
// must not be read as float32. The operand at `integers` is int32.
inline bool readable(int count, const char** types, int integers) {
  for (int index = 0; index < count; ++index) {
    if (std::strcmp(types[index], index == integers ? "int32" : "float32") != 0) return false;
  }
  return true;
}

}  // namespace xcit

// Export a function with the signature of MindSpore's ahead-of-time custom operators.
#define XCIT_OPERATION_WITH_INTEGERS(name, integers, ...)                                                         \
  extern "C" __attribute__((visibility("default")))                                                               \
  int name(int count, void** data, int* ranks, std::int64_t** shapes, const char** types, void*, void*) {         \
    if (!xcit::readable(count, types, integers)) return xcit::kWrongType;                                         \
    const xcit::Arguments a{data, ranks, shapes};                                                                 \
    __VA_ARGS__;                                                                                                  \
    return 0;                                                                                                     \
  }
#define XCIT_OPERATION(name, ...) XCIT_OPERATION_WITH_INTEGERS(name, xcit::kNone, __VA_ARGS__)
