// The operations on narrow numbers against naive ones that round the same factors, at sizes that leave edges everywhere.
//
// Compiled for processors without the instructions as well, where others compute the same. Exits 1 if anything is
// apart.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <sys/syscall.h>
#include <unistd.h>

#include "bfloat16.cpp"
#include "int8.cpp"
#include "operations_test.h"
#include "reference.h"

using namespace xcit;

namespace {

using reference::Sides;

float widened(std::uint16_t half) {
  const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
  float number;
  std::memcpy(&number, &bits, sizeof number);
  return number;
}

void check_that(const std::string& what, bool holds) {
  ++checks;
  if (holds) return;
  ++failures;
  std::printf("%s\n", what.c_str());
}

// One by one and by the row: to the nearest, ties to even, beyond the largest to infinity; what is not a number stays none.
void test_rounding() {
  const float largest = std::numeric_limits<float>::max(), infinite = std::numeric_limits<float>::infinity();
  std::vector<float> numbers{0.0f, -0.0f, 1.0f, -1.0f, largest, -largest, infinite, -infinite, 1.17549435e-38f, 3.38953139e38f};
  for (std::uint32_t bits : {0x3f808000u, 0x3f818000u, 0xbf808000u, 0x3f808001u, 0x3f807fffu, 0x3fffffffu, 0x7fc00000u, 0x7fffffffu,
                             0xffffffffu, 0x7f800001u}) {  // ties, their neighbours, the next power of two; not numbers
    float number;
    std::memcpy(&number, &bits, sizeof number);
    numbers.push_back(number);
  }
  for (const float number : draw({4096}, 3.0f).data) numbers.push_back(number);
  std::vector<std::uint16_t> row(numbers.size());
  round_row(numbers.data(), numbers.size(), row.data());
  bool each = true, all = true;
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const double nearest = std::isfinite(numbers[i]) ? reference::bfloat16(numbers[i]) : numbers[i];
    const float expected = std::fabs(nearest) > largest ? std::copysign(infinite, numbers[i]) : static_cast<float>(nearest);
    const auto is = [&](std::uint16_t found) {
      const float number = widened(found);
      return std::isnan(expected) ? std::isnan(number) : number == expected && std::signbit(number) == std::signbit(expected);
    };
    each = each && is(rounded(numbers[i])), all = all && is(row[i]);
  }
  check_that("a number is not rounded to the nearest", each);
  check_that("a row is not rounded to the nearest", all);
}

// The whole number nearest to each, by the greatest of the row; a row that is not sound stays so.
void test_quantising() {
  const float infinite = std::numeric_limits<float>::infinity(), none = std::numeric_limits<float>::quiet_NaN();
  bool near = true;
  for (int64_t count : {1, 5, 16, 100}) {
    const Tensor x = draw({count}, 3.0f);
    std::vector<std::uint8_t> found(count);
    const float scale = quantise(x.data.data(), count, found.data());
    for (int64_t i = 0; i < count; ++i) {
      near = near && found[i] >= 1 && std::fabs(x.data[i] - scale * (found[i] - 128)) <= 0.50001f * scale;
    }
  }
  check_that("a number is not quantised to the nearest", near);
  const auto scale_of = [](std::vector<float> x) {
    std::vector<std::uint8_t> found(x.size());
    const float scale = quantise(x.data(), x.size(), found.data());
    return std::all_of(found.begin(), found.end(), [](int number) { return number == 128; }) ? scale : -1.0f;
  };
  check_that("zeros are not zeros", scale_of({0.0f, -0.0f}) == 0.0f && scale_of({1e-40f, -1e-31f}) == 0.0f);
  for (const float fault : {infinite, -infinite, none}) check_that("a fault was lost", std::isnan(scale_of({1.0f, fault, -2.0f})));
}

// Both kinds of factors: what a product of random ones is, rows and weight as they are, and a tolerance of `check`.
struct Bfloat16Test {
  using Factors = Bfloat16Factors;
  static constexpr auto kPack = PackWeightBfloat16;
  static Tensor factor(int64_t rows, int64_t depth) { return draw({rows, depth}); }
  static Numbers product(const Numbers& x, const Numbers& weight, const Numbers& bias) { return reference::linear_bfloat16(x, weight, bias); }
};

struct Int8Test {
  using Factors = Int8Factors;
  static constexpr auto kPack = PackWeightInt8;
  // Whole numbers of 32nds, as great as 127 of them in every row, so that none lies between two.
  static Tensor factor(int64_t rows, int64_t depth) {
    Tensor t = draw({rows, depth});
    for (int64_t i = 0; i < rows * depth; ++i) {
      t.data[i] = i % depth == 0 ? std::copysign(127.0f / 32.0f, t.data[i]) : std::floor(std::fmod(t.data[i] * 32.0f, 127.0f)) / 32.0f;
    }
    return t;
  }
  static Numbers product(const Numbers& x, const Numbers& weight, const Numbers& bias) { return reference::linear_int8(x, weight, bias); }
};

template <class Kind>
Tensor pack(const Tensor& weight) {
  const int64_t width = weight.shape[0], depth = weight.shape[1];
  Tensor packed = zeros({Kind::Factors::packed_words(width, depth)});
  Kind::kPack(weight.data.data(), width, depth, packed.data.data());
  packed.integers = true;
  return packed;
}

template <class Kind>
void test_product(int64_t rows, int64_t depth, int64_t width) {
  const Tensor x = Kind::factor(rows, depth), weight = Kind::factor(width, depth), bias = draw({width}), packed = pack<Kind>(weight);
  const std::string name = std::to_string(rows) + ", " + std::to_string(depth) + ", " + std::to_string(width);
  const Numbers expected = Kind::product(x.wide(), weight.wide(), bias.wide());
  for (const bool by_parts : {false, true}) {
    Tensor y = zeros({rows, width});
    // What was in the workspace before must not count.
    std::fill_n(workspace(Use::kBandIn, rows * (2 * depth + 2)), rows * (2 * depth + 2), std::numeric_limits<float>::quiet_NaN());
    const auto a = by_parts ? Kind::Factors::parts_in(Use::kBandIn, rows, depth) : Kind::Factors::rows_in(Use::kBandIn, rows, depth);
    for (int64_t row = 0; row < rows; ++row) {
      const float* from = &x.data[row * depth];
      if (!by_parts) a.round(row, from, depth);
      for (int64_t k = 0; by_parts && k < depth; k += 48) a.part(row, from + k, k, std::min<int64_t>(48, depth - k));
    }
    if (by_parts) a.whole();
    Kind::Factors::multiply(rows, a, packed.data.data(), width, depth, by(add_bias(bias.data.data(), y.data.data(), width), 0));
    check((by_parts ? "product by parts of " : "product of ") + name, y, expected);
  }
}

template <class Kind>
void test_products() {
  for (const int64_t rows : {1, 3, 8, 61}) {
    for (const int64_t depth : {1, 2, 40, 201}) {
      for (const int64_t width : {1, 7, 16, 49, 96}) test_product<Kind>(rows, depth, width);
    }
  }
  test_product<Kind>(100, 1603, 130);  // more words than are packed at a time
}

// Root mean square.
double distance(const Numbers& a, const Numbers& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum / a.size());
}

template <class Kind>
void test_blocks(Function run, reference::Gelu gelu, bool normalised, int64_t images, Sides sides, int64_t channels, int64_t hidden,
                 int64_t heads, int64_t layers) {
  const int64_t tokens = sides.height * sides.width, c = channels;
  const float narrow = 1.0f / std::sqrt(static_cast<float>(c)), thin = 1.0f / std::sqrt(static_cast<float>(hidden));
  Tensor x = draw({images, tokens, c}), out = zeros(x.shape);
  Tensor where = whole({static_cast<std::int32_t>(sides.height), static_cast<std::int32_t>(sides.width), 0, static_cast<std::int32_t>(layers)});
  Tensor epsilon = full({1}, 1e-6f);
  Numbers plain = x.wide(), expected = plain;  // with the factors as they are, and rounded
  std::vector<Tensor> all(17);
  for (int64_t layer = 0; layer < layers; ++layer) {
    const Tensor qkv = draw({3 * c, c}, narrow), proj = draw({c, c}, narrow), fc1 = draw({hidden, c}, narrow);
    const Tensor fc2 = draw({c, hidden}, thin), conv1 = draw({9, c}, 0.3f), conv2 = draw({9, c}, 0.3f);
    const Tensor temperature = draw({heads, 1, 1}, 0.1f, normalised ? 1.0f : 1.0f / tokens), norm3 = draw({c}, 0.3f, 0.7f);
    std::vector<Tensor> vectors;  // biases and shifts
    for (const int64_t size : {3 * c, c, c, c, c, c, c, hidden, c}) vectors.push_back(draw({size}, 0.3f));
    const Tensor &qkv_bias = vectors[0], &proj_bias = vectors[1], &beta3 = vectors[2], &conv1_bias = vectors[3], &scale = vectors[4];
    const Tensor &shift = vectors[5], &conv2_bias = vectors[6], &fc1_bias = vectors[7], &fc2_bias = vectors[8];
    const auto taps_last = [&](const Tensor& taps) {
      Numbers turned(9 * c);
      for (int64_t i = 0; i < 9 * c; ++i) turned[i % c * 9 + i / c] = taps.data[i];
      return turned;
    };
    const Numbers one(c, 1.0), zero(c, 0.0);
    const reference::Parameters p{one, zero, qkv.wide(), qkv_bias.wide(), temperature.wide(), proj.wide(), proj_bias.wide(), one,
                                  norm3.wide(), beta3.wide(), taps_last(conv1), conv1_bias.wide(), scale.wide(), shift.wide(),
                                  taps_last(conv2), conv2_bias.wide(), one, one, zero, fc1.wide(), fc1_bias.wide(), fc2.wide(),
                                  fc2_bias.wide(), one, zero, Numbers(c, 1.0 - 1e-5)};
    plain = reference::block(plain, {1.0}, sides, p, gelu, normalised, nullptr);
    expected = reference::block(expected, {1.0}, sides, p, gelu, normalised, nullptr, Kind::product);
    const std::vector<Tensor> fused{pack<Kind>(qkv), qkv_bias, temperature, pack<Kind>(proj), proj_bias, norm3, beta3, conv1, conv1_bias,
                                    scale, shift, conv2, conv2_bias, pack<Kind>(fc1), fc1_bias, pack<Kind>(fc2), fc2_bias};
    for (std::size_t i = 0; i < all.size(); ++i) {
      all[i].data.insert(all[i].data.end(), fused[i].data.begin(), fused[i].data.end());
      all[i].shape = fused[i].shape;
      all[i].shape.insert(all[i].shape.begin(), layers);
      all[i].integers = fused[i].integers;
    }
  }
  std::vector<Tensor*> operands{&x, &where, &epsilon};
  for (Tensor& one : all) operands.push_back(&one);
  operands.push_back(&out);
  call(run, operands);
  digest_of(out);
  // A number a little beside a tie is rounded the other way: rare in a layer, but the next one rounds all that it reaches anew.
  const double ours = distance(out.wide(), expected), rounding = distance(plain, expected);
  char said[100];
  std::snprintf(said, sizeof said, "blocks are %.3g apart, where rounding makes %.3g", ours, rounding);
  check_that(said, ours <= (layers == 1 ? 0.1 : 0.25) * rounding);
}

// Weights in float32 are numbers of another type, and refused.
void test_types(Function run) {
  Tensor one = zeros({1, 1, 1}), where = whole({1, 1, 0, 1}), weight = zeros({1, kPanel});
  std::vector<Tensor*> all(21, &one);
  all[operands::FusedBlocks::kWhere] = &where;
  for (const int place : {operands::FusedBlocks::kQkv, operands::FusedBlocks::kProj}) all[place] = &weight;
  check_that("weights in float32 were read", !accepts(run, all));
}

// Every operation of one kind of factors.
template <class Kind>
void test_all_blocks(Function erf, Function erf_raw, Function tanh, Function tanh_raw) {
  using namespace reference;
  test_blocks<Kind>(erf, gelu_erf, true, 2, {5, 7}, 24, 96, 2, 2);
  test_blocks<Kind>(erf, gelu_erf, true, 3, {1, 9}, 33, 41, 3, 1);
  test_blocks<Kind>(erf, gelu_erf, true, 1, {9, 13}, 64, 50, 1, 1);
  test_blocks<Kind>(erf_raw, gelu_erf, false, 2, {4, 4}, 16, 16, 4, 1);
  test_blocks<Kind>(tanh, gelu_tanh, true, 1, {1, 1}, 8, 3, 8, 1);
  test_blocks<Kind>(tanh_raw, gelu_tanh, false, 2, {3, 5}, 48, 20, 4, 2);
  test_blocks<Kind>(erf, gelu_erf, true, 1, {43, 50}, 8, 12, 2, 1);  // a large image, by chunks
  test_types(erf);
}

}  // namespace

int main() {
#if defined(__AMX_TILE__)
  constexpr long kAskFor = 0x1023, kTileData = 18;  // Linux lets a process use these registers once it has asked
  check_that("the system does not permit AMX", syscall(SYS_arch_prctl, kAskFor, kTileData) == 0);
#endif
  test_rounding();
  test_quantising();
  test_products<Bfloat16Test>();
  test_products<Int8Test>();
  test_all_blocks<Bfloat16Test>(FusedBlocksErfBfloat16, FusedBlocksErfRawBfloat16, FusedBlocksTanhBfloat16, FusedBlocksTanhRawBfloat16);
  test_all_blocks<Int8Test>(FusedBlocksErfInt8, FusedBlocksErfRawInt8, FusedBlocksTanhInt8, FusedBlocksTanhRawInt8);
  test_product<Bfloat16Test>(48, 96, 96);  // whole tiles and nothing beside them
  test_product<Int8Test>(48, 192, 96);
  return report();
}
