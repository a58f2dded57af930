// Every operation against its naive reference, at sizes that leave edges everywhere; gradients against the reference's slopes.
//
// With the word "values" no slope is taken: what they cost is the reference, which no sanitizer and no other number of
// threads need see again; gradients are part of the digest. Another word is a file that keeps the slopes, which are the
// reference's alone, for the next library. Exits 1 if anything is apart. It is linked with a library of
// the package, or with kernels.cpp compiled otherwise.

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "operands.h"
#include "operations_test.h"
#include "reference.h"

using xcit::kPanel;

extern "C" {
using Operation = int(int, void**, int*, int64_t**, const char**, void*, void*);

Operation GeluErf, GeluErfGrad, GeluTanh, GeluTanhGrad, LayerNorm, LayerNormGrad, Linear, LinearGrad, PackedLinear, SquaredSum;
Operation ClassAttention, ClassAttentionGrad, FusedStemErf, FusedStemTanh;

#define STAGE_OPERATIONS(name) Stage##name, StageMoving##name, StageMoving##name##Grad, StageFrozen##name, StageFrozen##name##Grad
#define FIRST_STAGE_OPERATIONS(name) STAGE_OPERATIONS(name), StageMoving##name##GradOfImage, StageFrozen##name##GradOfImage
#define BLOCKS_OPERATIONS(name) \
  Blocks##name, FusedBlocks##name, BlocksMoving##name, BlocksMoving##name##Grad, BlocksFrozen##name, BlocksFrozen##name##Grad

Operation FIRST_STAGE_OPERATIONS(ImageErf), FIRST_STAGE_OPERATIONS(ImageTanh);
Operation STAGE_OPERATIONS(Erf), STAGE_OPERATIONS(Tanh), STAGE_OPERATIONS(Last);
Operation BLOCKS_OPERATIONS(Erf), BLOCKS_OPERATIONS(ErfRaw), BLOCKS_OPERATIONS(Tanh), BLOCKS_OPERATIONS(TanhRaw);
Operation ClassBlockErf, ClassBlockErfRaw, ClassBlockErfLast, ClassBlockTanh, ClassBlockTanhRaw, ClassBlockTanhLast;

void PackWeight(const float* weight, int64_t width, int64_t depth, float* packed);
}

namespace {

using reference::Sides;

bool slopes = true;
std::FILE *read_from = nullptr, *written_to = nullptr;

Tensor positive(const Shape& shape) {
  Tensor t = draw(shape);
  for (float& number : t.data) number = 0.5f + std::fabs(number);
  return t;
}

double dot(const Numbers& a, const Numbers& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// Hold the gradient of each of some operands against the slope of `loss`, of all of them, in a random direction.
void check_gradients(const std::string& what, std::vector<Numbers> at, const std::vector<const Tensor*>& gradients,
                     const std::function<double(const std::vector<Numbers>&)>& loss) {
  const double step = 1e-5;
  for (std::size_t which = 0; which < gradients.size(); ++which) {
    digest_of(*gradients[which]);
    const Numbers direction = draw({static_cast<int64_t>(at[which].size())}).wide(), before = at[which];
    if (!slopes) continue;
    ++checks;
    const auto moved = [&](double by) {
      for (std::size_t i = 0; i < before.size(); ++i) at[which][i] = before[i] + by * direction[i];
      const double value = loss(at);
      at[which] = before;
      return value;
    };
    double expected;
    if (!read_from) {
      expected = (moved(step) - moved(-step)) / (2.0 * step);
      if (written_to) std::fwrite(&expected, sizeof expected, 1, written_to);
    } else if (std::fread(&expected, sizeof expected, 1, read_from) != 1) {
      expected = NAN;
    }
    const double found = dot(gradients[which]->wide(), direction);
    const double size = std::sqrt(dot(gradients[which]->wide(), gradients[which]->wide()));
    if (std::fabs(found - expected) <= 2e-4 * std::max(1.0, size)) continue;
    ++failures;
    std::printf("%s, gradient %zu: %.6g for %.6g, of length %.3g\n", what.c_str(), which, found, expected, size);
  }
}

Tensor pack(const Tensor& weight) {
  const int64_t width = weight.shape[0], depth = product(weight.shape) / width;
  Tensor packed = zeros({(width + kPanel - 1) / kPanel * kPanel * depth});
  PackWeight(weight.data.data(), width, depth, packed.data.data());
  return packed;
}

// ---- the operations ----------------------------------------------------------------------------------------------------

void test_gelu(Function forward, Function backward, reference::Gelu gelu, const char* name) {
  Tensor x = draw({7, 911}, 4.0f), y = zeros(x.shape), dy = draw(x.shape), dx = zeros(x.shape);
  call(forward, {&x, &y});
  call(backward, {&x, &dy, &dx});
  check(name, y, reference::each(x.wide(), gelu), 3e-7);
  check_gradients(name, {x.wide()}, {&dx}, [&](const auto& at) { return dot(dy.wide(), reference::each(at[0], gelu)); });
}

void test_squared_sum(int64_t size) {
  Tensor x = draw({size}, 2.0f), sum = zeros({1});
  call(SquaredSum, {&x, &sum});
  check("sum of " + std::to_string(size) + " squares", sum, {dot(x.wide(), x.wide())}, 1e-6);
}

void test_layer_norm(int64_t rows, int64_t channels) {
  Tensor x = draw({rows, channels}, 2.0f, 3.0f), gamma = draw({channels}), beta = draw({channels}), epsilon = full({1}, 1e-6f);
  Tensor y = zeros(x.shape), dy = draw(x.shape), dx = zeros(x.shape), dgamma = zeros({channels}), dbeta = zeros({channels});
  call(LayerNorm, {&x, &gamma, &beta, &epsilon, &y});
  call(LayerNormGrad, {&x, &gamma, &epsilon, &dy, &dx, &dgamma, &dbeta});
  check("layer norm", y, reference::layer_norm(x.wide(), gamma.wide(), beta.wide(), 1e-6));
  check_gradients("layer norm", {x.wide(), gamma.wide(), beta.wide()}, {&dx, &dgamma, &dbeta}, [&](const auto& at) {
    return dot(dy.wide(), reference::layer_norm(at[0], at[1], at[2], 1e-6));
  });
}

void test_linear(int64_t rows, int64_t depth, int64_t width) {
  const std::string name = "affine map of " + std::to_string(rows) + ", " + std::to_string(depth) + ", " + std::to_string(width);
  Tensor x = draw({rows, depth}), weight = draw({width, depth}), bias = draw({width}), y = zeros({rows, width}), again = y;
  Tensor dy = draw(y.shape), dx = zeros(x.shape), dweight = zeros(weight.shape), dbias = zeros({width}), packed = pack(weight);
  call(Linear, {&x, &weight, &bias, &y});
  call(PackedLinear, {&x, &packed, &bias, &again});
  call(LinearGrad, {&x, &weight, &dy, &dx, &dweight, &dbias});
  const Numbers expected = reference::linear(x.wide(), weight.wide(), bias.wide());
  check(name, y, expected);
  check(name + ", packed", again, expected);
  check_gradients(name, {x.wide(), weight.wide(), bias.wide()}, {&dx, &dweight, &dbias}, [&](const auto& at) {
    return dot(dy.wide(), reference::linear(at[0], at[1], at[2]));
  });
}

void test_class_attention(int64_t images, int64_t tokens, int64_t channels, std::int32_t heads) {
  const float narrow = 1.0f / std::sqrt(static_cast<float>(channels));
  Tensor x = draw({images, tokens, channels}), head_count = whole({heads}), weight = draw({3 * channels, channels}, narrow);
  Tensor bias = draw({3 * channels}), out = zeros({images, 1, channels}), dy = draw(out.shape);
  Tensor dx = zeros(x.shape), dweight = zeros(weight.shape), dbias = zeros(bias.shape);
  call(ClassAttention, {&x, &head_count, &weight, &bias, &out});
  call(ClassAttentionGrad, {&x, &head_count, &weight, &bias, &dy, &dx, &dweight, &dbias});
  const auto expected = [&](const std::vector<Numbers>& at) { return reference::class_attentions(at[0], at[1], at[2], tokens, heads); };
  const std::vector<Numbers> at{x.wide(), weight.wide(), bias.wide()};
  check("class attention", out, expected(at), 1e-5);
  check_gradients("class attention", at, {&dx, &dweight, &dbias}, [&](const auto& moved) { return dot(dy.wide(), expected(moved)); });
}

// (B, H, W, K) → (B, K, H, W)
Tensor channels_first(const Tensor& x) {
  const int64_t images = x.shape[0], pixels = x.shape[1] * x.shape[2], channels = x.shape[3];
  Tensor out = zeros({images, channels, x.shape[1], x.shape[2]});
  for (int64_t i = 0; i < product(x.shape); ++i) {
    const int64_t image = i / (pixels * channels), pixel = i / channels % pixels, c = i % channels;
    out.data[(image * channels + c) * pixels + pixel] = x.data[i];
  }
  return out;
}

// The folded patch embedding: stages of the widths, the last with features of the position.
void test_stem(Function run, reference::Gelu gelu, int64_t images, Sides sides, int64_t inputs, const std::vector<std::int32_t>& widths) {
  const int64_t half = 5, features = 2 * half;
  Tensor x = draw({images, sides.height, sides.width, inputs}), given = channels_first(x), where = whole(widths);
  Tensor weights = zeros({0}), biases = zeros({0}), position = zeros({1, half});
  Numbers expected = x.wide();
  for (std::size_t which = 0; which < widths.size(); ++which) {
    const int64_t outputs = widths[which], extra = which + 1 < widths.size() ? 0 : features;
    const Tensor weight = draw({outputs, inputs, 3, 3}, 0.3f), bias = draw({outputs});
    expected = reference::convolution(expected, weight.wide(), bias.wide(), sides, inputs, 2, false);
    sides = {(sides.height + 1) / 2, (sides.width + 1) / 2};
    Tensor seen = zeros({outputs, 9 * inputs + extra});  // taps before channels
    for (int64_t n = 0; n < outputs; ++n) {
      float* row = &seen.data[n * (9 * inputs + extra)];
      for (int64_t i = 0; i < 9 * inputs; ++i) row[i % 9 * inputs + i / 9] = weight.data[n * 9 * inputs + i];
    }
    if (extra) {
      position = draw({sides.height + sides.width, half});
      for (int64_t n = 0; n < outputs; ++n) {
        for (int64_t f = 0; f < features; ++f) {
          const float number = seen.data[n * (9 * inputs + extra) + 9 * inputs + f] = draw({1}).data[0];
          for (int64_t at = 0; at < images * sides.height * sides.width; ++at) {
            const int64_t line = f < half ? at / sides.width % sides.height : sides.height + at % sides.width;
            expected[at * outputs + n] += number * position.data[line * half + f % half];
          }
        }
      }
    } else {
      expected = reference::each(expected, gelu);
    }
    const Tensor packed = pack(seen);
    weights.data.insert(weights.data.end(), packed.data.begin(), packed.data.end());
    biases.data.insert(biases.data.end(), bias.data.begin(), bias.data.end());
    inputs = outputs;
  }
  weights.shape = {static_cast<int64_t>(weights.data.size())}, biases.shape = {static_cast<int64_t>(biases.data.size())};
  Tensor out = zeros({images, sides.height * sides.width, inputs});
  call(run, {&given, &where, &weights, &biases, &position, &out});
  check("fused stem", out, expected, 1e-5);
}

struct StageFunctions {
  Function evaluate, moving, moving_grad, frozen, frozen_grad, moving_image = nullptr, frozen_image = nullptr;
};

void test_stage(const StageFunctions& run, bool image, bool last, reference::Gelu gelu, Sides sides, int64_t inputs, int64_t outputs) {
  const int64_t images = 2;
  const Sides half{(sides.height + 1) / 2, (sides.width + 1) / 2};
  Tensor x = draw({images, sides.height, sides.width, inputs}), given = image ? channels_first(x) : x;
  Tensor weight = draw({outputs, inputs, 3, 3}, 0.3f), epsilon = full({1}, 1e-5f), gamma = draw({outputs}, 0.3f, 1.0f);
  Tensor beta = draw({outputs}), mean = draw({outputs}), variance = positive({outputs});
  Tensor out = zeros({images, half.height, half.width, outputs}), convolved = out, dy = draw(out.shape);
  std::vector<Tensor*> operands{&given, &weight, &epsilon, &gamma, &beta, &mean, &variance};
  const reference::Parameters p{weight.wide(), gamma.wide(), beta.wide(), mean.wide(), variance.wide()};
  const auto with = [&](std::vector<Tensor*> others) {
    std::vector<Tensor*> all(operands);
    all.insert(all.end(), others.begin(), others.end());
    return all;
  };
  const Numbers expected = reference::stage(x.wide(), sides, p, gelu, nullptr);
  call(run.evaluate, with({&out}));
  check("stage", out, expected);

  for (const bool moving : {true, false}) {
    Tensor batch_mean = zeros({outputs}), batch_variance = zeros({outputs});
    Tensor dx = zeros(given.shape), dweight = zeros(weight.shape), dgamma = zeros({outputs}), dbeta = zeros({outputs});
    call(moving ? run.moving : run.frozen, with({&out, &convolved, &batch_mean, &batch_variance}));
    if (image) {
      call(moving ? run.moving_grad : run.frozen_grad, with({&convolved, &batch_mean, &batch_variance, &dy, &dweight, &dgamma, &dbeta}));
      call(moving ? run.moving_image : run.frozen_image, with({&convolved, &batch_mean, &batch_variance, &dy, &dx}));
    } else {
      call(moving ? run.moving_grad : run.frozen_grad,
           with({&convolved, &batch_mean, &batch_variance, &dy, &dx, &dweight, &dgamma, &dbeta}));
    }
    reference::Moments batch{mean.wide(), variance.wide()};
    check("stage in training", out, reference::stage(x.wide(), sides, p, gelu, moving ? &batch : nullptr));
    check("mean of a stage", batch_mean, batch.mean);
    check("variance of a stage", batch_variance, batch.variance);
    Tensor dx_last = dx;
    if (image) {  // back to channels last
      const int64_t pixels = sides.height * sides.width;
      for (int64_t i = 0; i < product(dx.shape); ++i) {
        dx_last.data[i] = dx.data[(i / (pixels * inputs) * inputs + i % inputs) * pixels + i / inputs % pixels];
      }
    }
    check_gradients("stage", {x.wide(), weight.wide(), gamma.wide(), beta.wide()}, {&dx_last, &dweight, &dgamma, &dbeta},
                    [&](const auto& at) {
                      reference::Moments again;
                      return dot(dy.wide(), reference::stage(at[0], sides, {at[1], at[2], at[3], p[3], p[4]}, gelu, moving ? &again : nullptr));
                    });
  }
}

struct BlockFunctions {
  Function evaluate, fused, moving, moving_grad, frozen, frozen_grad;
};

void test_blocks(const BlockFunctions& run, reference::Gelu gelu, bool normalised, int64_t images, Sides sides, int64_t channels,
                 int64_t hidden, int64_t heads, int64_t layers, bool drops) {
  const int64_t tokens = sides.height * sides.width, c = channels;
  const float narrow = 1.0f / std::sqrt(static_cast<float>(c)), thin = 1.0f / std::sqrt(static_cast<float>(hidden));
  std::vector<Shape> shapes{{c}, {c}, {3 * c, c}, {3 * c}, {heads, 1, 1}, {c, c}, {c}, {c}, {c}, {c}, {c, 1, 3, 3}, {c}, {c}, {c},
                            {c, 1, 3, 3}, {c}, {c}, {c}, {c}, {hidden, c}, {hidden}, {c, hidden}, {c}, {c}, {c}, {c}};
  std::vector<Tensor> parameters;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    Shape stacked(shapes[i]);
    stacked.insert(stacked.begin(), layers);
    const bool matrix = shapes[i].size() == 2;
    parameters.push_back(i + 1 == shapes.size()    ? positive(stacked)
                         : matrix                  ? draw(stacked, shapes[i][1] == hidden ? thin : narrow)
                         : shapes[i].size() == 4   ? draw(stacked, 0.3f)
                         : shapes[i].size() == 3   ? draw(stacked, 0.1f, normalised ? 1.0f : 1.0f / tokens)
                                                   : draw(stacked, 0.3f, 0.7f));
  }
  Tensor x = draw({images, tokens, c}), out = zeros(x.shape), dy = draw(x.shape);
  Tensor keep = drops ? positive({layers * 3 * images}) : full({1}, 1.0f);
  Tensor grid = whole({static_cast<std::int32_t>(sides.height), static_cast<std::int32_t>(sides.width)}), epsilons = zeros({2});
  epsilons.data = {1e-6f, 1e-5f};
  std::vector<Tensor*> operands{&x, &keep, &grid, &epsilons};
  for (Tensor& parameter : parameters) operands.push_back(&parameter);
  const auto with = [&](const std::vector<Tensor*>& others) {
    std::vector<Tensor*> all(operands);
    all.insert(all.end(), others.begin(), others.end());
    return all;
  };
  // x, then every parameter with its layers → the result
  const auto expected = [&](const std::vector<Numbers>& at, const Numbers& kept, bool moving, reference::Moments* statistics) {
    Numbers y = at[0];
    for (int64_t layer = 0; layer < layers; ++layer) {
      reference::Parameters p;
      for (std::size_t i = 0; i < shapes.size(); ++i) {
        const int64_t size = product(shapes[i]);
        p.emplace_back(at[1 + i].begin() + layer * size, at[1 + i].begin() + (layer + 1) * size);
      }
      const Numbers factors =
          kept.size() == 1 ? kept : Numbers(kept.begin() + layer * 3 * images, kept.begin() + (layer + 1) * 3 * images);
      reference::Moments batch{p[24], p[25]};
      y = reference::block(y, factors, sides, p, gelu, normalised, moving ? &batch : nullptr);
      if (!statistics) continue;
      statistics->mean.insert(statistics->mean.end(), batch.mean.begin(), batch.mean.end());
      statistics->variance.insert(statistics->variance.end(), batch.variance.begin(), batch.variance.end());
    }
    return y;
  };
  std::vector<Numbers> at{x.wide()};
  for (const Tensor& parameter : parameters) at.push_back(parameter.wide());

  call(run.evaluate, with({&out}));
  check("blocks", out, expected(at, {1.0}, false, nullptr), 2e-5);

  // Fused: norms 1 and 2 and the layer scales are not there, so blocks without them are.
  std::vector<Numbers> plain(at);
  for (int i : {0, 7, 16, 17, 23}) std::fill(plain[1 + i].begin(), plain[1 + i].end(), 1.0);
  for (int i : {1, 18}) std::fill(plain[1 + i].begin(), plain[1 + i].end(), 0.0);
  std::vector<Tensor> fused;
  for (int i : {2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 19, 20, 21, 22}) {
    Tensor all{parameters[i].shape, {}};
    for (int64_t layer = 0; layer < layers; ++layer) {
      const int64_t size = product(shapes[i]);
      Tensor one{shapes[i], std::vector<float>(parameters[i].data.begin() + layer * size, parameters[i].data.begin() + (layer + 1) * size)};
      if (shapes[i].size() == 2) one = pack(one);
      if (shapes[i].size() == 4) {  // (9, C)
        Tensor taps = zeros({9, c});
        for (int64_t j = 0; j < 9 * c; ++j) taps.data[j % 9 * c + j / 9] = one.data[j];
        one = taps;
      }
      for (int64_t j = 0; j < c && (i == 12 || i == 13); ++j) {  // the batch norm as scale and shift
        const float scale = parameters[12].data[layer * c + j] / std::sqrt(parameters[25].data[layer * c + j] + 1e-5f);
        one.data[j] = i == 12 ? scale : parameters[13].data[layer * c + j] - parameters[24].data[layer * c + j] * scale;
      }
      all.data.insert(all.data.end(), one.data.begin(), one.data.end());
    }
    if (all.data.size() != parameters[i].data.size()) all.shape = {layers, static_cast<int64_t>(all.data.size()) / layers};
    fused.push_back(all);
  }
  Tensor where = whole({static_cast<std::int32_t>(sides.height), static_cast<std::int32_t>(sides.width), 0, static_cast<std::int32_t>(layers)});
  Tensor epsilon = full({1}, 1e-6f);
  std::vector<Tensor*> fused_operands{&x, &where, &epsilon};
  for (Tensor& one : fused) fused_operands.push_back(&one);
  fused_operands.push_back(&out);
  call(run.fused, fused_operands);
  check("fused blocks", out, expected(plain, {1.0}, false, nullptr), 2e-5);

  for (const bool moving : {true, false}) {
    Tensor kept = zeros({images * tokens, layers * (8 * c + hidden) - c}), mean = zeros({layers, c}), variance = zeros({layers, c});
    Tensor dx = zeros(x.shape);
    std::vector<Tensor> gradients;
    for (int i = 0; i < 24; ++i) gradients.push_back(zeros(parameters[i].shape));
    std::vector<Tensor*> backward{&kept, &mean, &variance, &dy, &dx};
    std::vector<const Tensor*> found{&dx};
    for (Tensor& gradient : gradients) {
      backward.push_back(&gradient);
      found.push_back(&gradient);
    }
    call(moving ? run.moving : run.frozen, with({&out, &kept, &mean, &variance}));
    call(moving ? run.moving_grad : run.frozen_grad, with(backward));
    reference::Moments statistics;
    check("blocks in training", out, expected(at, keep.wide(), moving, &statistics), 2e-5);
    check("means of blocks", mean, statistics.mean, 2e-5);
    check("variances of blocks", variance, statistics.variance, 2e-5);
    check_gradients("blocks", at, found,
                    [&](const auto& moved) { return dot(dy.wide(), expected(moved, keep.wide(), moving, nullptr)); });
  }
}

void test_class_block(Function run, bool tokens_wanted, bool tokens_norm, reference::Gelu gelu, int64_t images, bool one_for_all,
                      int64_t tokens, int64_t channels, int64_t hidden, int64_t heads) {
  const int64_t c = channels, dim = c / heads;
  const float narrow = 1.0f / std::sqrt(static_cast<float>(c));
  Tensor cls_token = draw({one_for_all ? 1 : images, 1, c}), patches = draw({images, tokens, c}), epsilon = full({1}, 1e-6f);
  std::vector<Tensor> p{draw({c}), draw({c}), draw({c, c}, narrow), draw({c}), draw({heads, dim, c}, narrow), draw({c, c}, narrow),
                        draw({c}), draw({c, c}, narrow), draw({c}), draw({c}), draw({c}), draw({hidden, c}, narrow), draw({hidden}),
                        draw({c, hidden}, narrow), draw({c}), draw({c})};
  reference::Parameters wide;
  for (const Tensor& one : p) wide.push_back(one.wide());
  for (int i : {2, 7, 11, 13}) p[i] = pack(p[i]);
  Tensor cls_out = zeros({images, 1, c}), tokens_out = zeros(patches.shape);
  std::vector<Tensor*> operands{&cls_token, &patches, &epsilon};
  for (Tensor& one : p) operands.push_back(&one);
  if (tokens_wanted) operands.push_back(&tokens_out);
  operands.push_back(&cls_out);
  call(run, operands);
  Numbers expected_class, expected_tokens;
  for (int64_t image = 0; image < images; ++image) {
    const Numbers all_classes = cls_token.wide(), all_tokens = patches.wide();
    const int64_t from = one_for_all ? 0 : image * c, first = image * tokens * c;
    const auto result = reference::class_block(Numbers(all_classes.begin() + from, all_classes.begin() + from + c),
                                               Numbers(all_tokens.begin() + first, all_tokens.begin() + first + tokens * c), wide,
                                               heads, gelu, tokens_norm);
    expected_class.insert(expected_class.end(), result.cls_token.begin(), result.cls_token.end());
    expected_tokens.insert(expected_tokens.end(), result.tokens.begin(), result.tokens.end());
  }
  check("class token", cls_out, expected_class, 1e-5);
  if (tokens_wanted) check("patch tokens", tokens_out, expected_tokens, 1e-5);
}

#define STAGE(name) {STAGE_OPERATIONS(name)}
#define FIRST_STAGE(name) {FIRST_STAGE_OPERATIONS(name)}
#define BLOCKS(name) {BLOCKS_OPERATIONS(name)}

}  // namespace

int main(int count, char** words) {
  using namespace reference;
  const std::string word = count < 2 ? "" : words[1];
  slopes = word != "values";
  if (slopes && !word.empty()) {
    read_from = std::fopen(word.c_str(), "rb");
    if (!read_from) written_to = std::fopen((word + ".part").c_str(), "wb");
  }
  test_gelu(GeluErf, GeluErfGrad, gelu_erf, "erf GELU");
  test_gelu(GeluTanh, GeluTanhGrad, gelu_tanh, "tanh GELU");
  for (const int64_t channels : {1, 24, 40, 192}) test_layer_norm(77, channels);
  for (const int64_t rows : {1, 3, 8, 61}) {
    for (const int64_t depth : {1, 40, 200}) {
      for (const int64_t width : {1, 7, 16, 49, 96}) test_linear(rows, depth, width);
    }
  }
  test_linear(300, 400, 130);
  test_stage(FIRST_STAGE(ImageErf), true, false, gelu_erf, {15, 22}, 3, 12);
  test_stage(FIRST_STAGE(ImageTanh), true, false, gelu_tanh, {1, 1}, 1, 7);
  test_stage(STAGE(Erf), false, false, gelu_erf, {9, 6}, 5, 50);
  test_stage(STAGE(Tanh), false, false, gelu_tanh, {4, 7}, 24, 16);
  test_stage(STAGE(Last), false, true, nullptr, {7, 5}, 12, 24);
  // Several bands of an image, and windows cut into several steps of a sum.
  test_stage(FIRST_STAGE(ImageErf), true, false, gelu_erf, {131, 130}, 3, 9);
  test_stage(STAGE(Erf), false, false, gelu_erf, {63, 94}, 11, 5);
  test_stage(STAGE(Last), false, true, nullptr, {30, 37}, 130, 5);
  test_stem(FusedStemErf, gelu_erf, 2, {64, 35}, 3, {6, 12, 24, 50});
  test_stem(FusedStemErf, gelu_erf, 1, {57, 16}, 3, {7, 14, 40});
  test_stem(FusedStemErf, gelu_erf, 5, {3, 200}, 4, {16, 33});
  test_stem(FusedStemTanh, gelu_tanh, 1, {1, 1}, 1, {8, 3});
  // More numbers in the first stage than a band may have.
  test_stem(FusedStemTanh, gelu_tanh, 1, {64, 8200}, 1, {32, 8, 8, 8});
  test_blocks(BLOCKS(Erf), gelu_erf, true, 2, {5, 7}, 24, 96, 2, 2, false);
  test_blocks(BLOCKS(Erf), gelu_erf, true, 3, {1, 9}, 30, 41, 3, 1, true);
  test_blocks(BLOCKS(Erf), gelu_erf, true, 1, {9, 13}, 64, 50, 1, 1, false);
  test_blocks(BLOCKS(ErfRaw), gelu_erf, false, 2, {4, 4}, 16, 16, 4, 1, false);
  test_blocks(BLOCKS(Tanh), gelu_tanh, true, 1, {1, 1}, 8, 3, 8, 1, false);
  test_blocks(BLOCKS(TanhRaw), gelu_tanh, false, 2, {3, 5}, 48, 20, 4, 2, true);
  // More tokens than are taken at a time.
  test_blocks(BLOCKS(Erf), gelu_erf, true, 1, {58, 71}, 16, 8, 2, 2, false);
  test_blocks(BLOCKS(TanhRaw), gelu_tanh, false, 3, {2, 2049}, 5, 4, 1, 1, false);
  test_class_attention(3, 22, 24, 3);
  test_class_attention(1, 1, 48, 1);
  test_class_attention(2, 41, 30, 2);
  test_class_attention(1, 3000, 40, 4);
  test_class_attention(20, 5, 64, 4);
  test_class_block(ClassBlockErf, true, true, gelu_erf, 2, true, 21, 24, 50, 3);
  test_class_block(ClassBlockErfRaw, true, false, gelu_erf, 3, false, 1, 48, 17, 1);
  test_class_block(ClassBlockErfLast, false, false, gelu_erf, 1, false, 40, 64, 96, 4);
  test_class_block(ClassBlockTanh, true, true, gelu_tanh, 2, false, 9, 30, 30, 2);
  test_class_block(ClassBlockTanhRaw, true, false, gelu_tanh, 1, true, 9, 16, 64, 2);
  test_class_block(ClassBlockTanhLast, false, false, gelu_tanh, 2, true, 700, 24, 24, 2);
  test_class_block(ClassBlockErf, true, true, gelu_erf, 1, false, 4200, 16, 8, 2);
  test_class_block(ClassBlockTanhRaw, true, false, gelu_tanh, 2, true, 8192, 6, 4, 1);
  for (const int64_t size : {1, 15, 64, 4095, 4097, 200000}) test_squared_sum(size);
  if (written_to && (std::fclose(written_to) != 0 || std::rename((word + ".part").c_str(), word.c_str()) != 0)) ++failures;
  return report();
}
