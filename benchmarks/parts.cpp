// Seconds that each part of a fused network takes, called alone on random numbers: see parts.py.
//
// Arguments: height and width of the image, its stem's widths as one list, hidden channels, heads, seconds a part.
// Prints a line for each part: its name, and the least seconds of a call on one image.

#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "block.h"
#include "patch_embed.h"

using namespace xcit;

namespace {

double now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Small numbers of both signs, the same in every run.
struct Random {
  const Buffer memory;

  explicit Random(int64_t count) : memory(count) {
    std::uint32_t state = 1;
    for (int64_t i = 0; i < count; ++i) {
      state = state * 1664525u + 1013904223u;
      memory[i] = static_cast<float>(static_cast<std::int32_t>(state)) * 1e-11f;
    }
  }
  operator const float*() const { return memory; }
};

template <class Call>
void measure(const char* name, double patience, const Call& call) {
  call();
  double least = 1e9;
  for (const double begin = now(); now() - begin < patience;) {
    const double before = now();
    call();
    least = std::min(least, now() - before);
  }
  std::printf("%s %.9f\n", name, least);
}

}  // namespace

int main(int count, char** given) {
  const int stages = count - 6;
  int64_t height = std::atol(given[1]), width = std::atol(given[2]);
  std::int32_t widths[8];
  for (int i = 0; i < stages; ++i) widths[i] = static_cast<std::int32_t>(std::atol(given[3 + i]));
  const int64_t hidden = std::atol(given[count - 3]), heads = std::atol(given[count - 2]), channels = widths[stages - 1];
  const double patience = std::atof(given[count - 1]);

  const Random weights(4 * hidden * channels + (1 << 22));
  int64_t sides[2] = {height, width};
  for (int i = 0; i < stages; ++i) sides[0] = (sides[0] + 1) / 2, sides[1] = (sides[1] + 1) / 2;
  const int64_t tokens = sides[0] * sides[1], features = 32;
  const Random image(3 * height * width), position((sides[0] + sides[1]) * features), x(tokens * channels);
  const Buffer out(tokens * channels), buffer(5 * tokens * channels);
  {
    void* data[] = {const_cast<float*>(static_cast<const float*>(image)), widths, const_cast<float*>(static_cast<const float*>(weights)),
                    const_cast<float*>(static_cast<const float*>(weights)), const_cast<float*>(static_cast<const float*>(position)),
                    static_cast<float*>(out)};
    int64_t shapes[][4] = {{1, 3, height, width}, {stages}, {1 << 22}, {1 << 12}, {sides[0] + sides[1], features}, {1, tokens, channels}};
    int64_t* shape[] = {shapes[0], shapes[1], shapes[2], shapes[3], shapes[4], shapes[5]};
    int ranks[] = {4, 1, 1, 1, 2, 3};
    const Arguments a{data, ranks, shape};
    measure("stem", patience, [&] { FusedStem<Erf>(a).run(); });
  }
  const BlockSizes s{1, tokens, channels, hidden, 1, {tokens, channels, heads, true}, {sides[0], sides[1], channels}, 1e-6f, 0.0f};
  BlockWeights w{};
  for (const float** one : {&w.qkv, &w.proj, &w.fc1, &w.fc2, &w.conv1, &w.conv2}) *one = weights;
  for (const float** one : {&w.norm1_gamma, &w.norm1_beta, &w.norm2_gamma, &w.norm2_beta, &w.norm3_gamma, &w.norm3_beta, &w.gamma1,
                            &w.gamma2, &w.gamma3, &w.qkv_bias, &w.proj_bias, &w.fc1_bias, &w.fc2_bias, &w.conv1_bias, &w.conv2_bias,
                            &w.bn_scale, &w.bn_beta, &w.moving_mean, &w.temperature}) {
    *one = weights;
  }
  const float one = 1.0f;
  const Block<Erf> block{s, w, {&one, true, 1, tokens, 0}, 0, 1};
  float *qkv = buffer, *rest = qkv + 3 * tokens * channels;
  const Places p{x, qkv, nullptr, out, rest, rest + tokens * channels, rest + tokens * channels, out, nullptr, out, nullptr};
  const Random maps(channels * channels);
  measure("qkv", patience, [&] { block.project(tokens, x, qkv); });
  measure("attention", patience, [&] { block.attention(p); });
  measure("mix", patience, [&] { block.mix(p, rows_of(qkv, 3 * channels).at(0, 2 * channels), maps); });
  measure("first_convolution", patience, [&] { block.first_convolution(p, true); });
  measure("second_convolution", patience, [&] { block.second_convolution(p); });
  measure("mlp", patience, [&] { block.mlp(p); });
  return 0;
}
