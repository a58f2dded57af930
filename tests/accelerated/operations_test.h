// What the tests of compiled operations share: random tensors, calls as MindSpore makes them, checks, and a digest of all
// results, which must not depend on the number of threads.

#pragma once

#include <cinttypes>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "reference.h"

namespace {

using reference::Numbers;
using Shape = std::vector<int64_t>;

int failures = 0, checks = 0;
std::uint64_t digest = 1469598103934665603u;
std::mt19937 generator(7);

struct Tensor {
  Shape shape;
  std::vector<float> data;
  bool integers = false;

  Numbers wide() const { return Numbers(data.begin(), data.end()); }
};

int64_t product(const Shape& shape) {
  int64_t size = 1;
  for (int64_t axis : shape) size *= axis;
  return size;
}

Tensor zeros(const Shape& shape) { return {shape, std::vector<float>(product(shape))}; }
Tensor full(const Shape& shape, float value) { return {shape, std::vector<float>(product(shape), value)}; }

Tensor draw(const Shape& shape, float scale = 1.0f, float centre = 0.0f) {
  Tensor t = zeros(shape);
  std::normal_distribution<float> normal(centre, scale);
  for (float& number : t.data) number = normal(generator);
  return t;
}

Tensor whole(const std::vector<std::int32_t>& numbers) {
  Tensor t = zeros({static_cast<int64_t>(numbers.size())});
  std::memcpy(t.data.data(), numbers.data(), numbers.size() * sizeof(float));
  t.integers = true;
  return t;
}

using Function = int (*)(int, void**, int*, int64_t**, const char**, void*, void*);

// Call as MindSpore does; false where the operation refuses its operands.
bool accepts(Function function, const std::vector<Tensor*>& operands) {
  std::vector<void*> data;
  std::vector<int> ranks;
  std::vector<int64_t*> shapes;
  std::vector<const char*> types;
  for (Tensor* t : operands) {
    data.push_back(t->data.data());
    ranks.push_back(t->shape.size());
    shapes.push_back(t->shape.data());
    types.push_back(t->integers ? "int32" : "float32");
  }
  return function(operands.size(), data.data(), ranks.data(), shapes.data(), types.data(), nullptr, nullptr) == 0;
}

void call(Function function, const std::vector<Tensor*>& operands) {
  if (accepts(function, operands)) return;
  std::printf("an operation refused its operands\n");
  ++failures;
}

void digest_of(const Tensor& found) {
  for (const float number : found.data) {
    std::uint32_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    digest = (digest ^ bits) * 1099511628211u;
  }
}

void check(const std::string& what, const Tensor& found, const Numbers& expected, double tolerance = 3e-6) {
  ++checks;
  double apart = 0.0, size = 1.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    size = std::max(size, std::fabs(expected[i]));
    const double distance = std::fabs(found.data[i] - expected[i]);
    apart = std::isnan(distance) ? INFINITY : std::max(apart, distance);
  }
  digest_of(found);
  if (found.data.size() == expected.size() && apart <= tolerance * size) return;
  ++failures;
  std::printf("%s: %zu numbers for %zu, apart by %.3g at a size of %.3g\n", what.c_str(), found.data.size(), expected.size(), apart, size);
}

int report() {
  std::printf("%d checks, %d failed, digest %016" PRIx64 "\n", checks, failures, digest);
  return failures != 0;
}

}  // namespace
