// What every operation computes, naively and in double precision: to read beside it, and what a test holds it against.
//
// Rows are tokens of C channels, row-major. Gradients have no reference of their own: the test takes these functions' slopes.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

namespace reference {

using Numbers = std::vector<double>;

inline double gelu_erf(double x) { return 0.5 * x * std::erfc(-x * std::sqrt(0.5)); }
inline double gelu_tanh(double x) { return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x))); }
using Gelu = double (*)(double);

inline Numbers each(Numbers x, Gelu function) {
  for (double& value : x) value = function(value);
  return x;
}

// x (rows, C), gamma (C), beta (C) → (rows, C)
inline Numbers layer_norm(const Numbers& x, const Numbers& gamma, const Numbers& beta, double epsilon) {
  const std::size_t channels = gamma.size();
  Numbers y(x.size());
  for (std::size_t at = 0; at < x.size(); at += channels) {
    double mean = 0.0, variance = 0.0;
    for (std::size_t c = 0; c < channels; ++c) mean += x[at + c] / channels;
    for (std::size_t c = 0; c < channels; ++c) variance += (x[at + c] - mean) * (x[at + c] - mean) / channels;
    for (std::size_t c = 0; c < channels; ++c) y[at + c] = (x[at + c] - mean) / std::sqrt(variance + epsilon) * gamma[c] + beta[c];
  }
  return y;
}

// x (rows, K), weight (N, K), bias (N) → (rows, N)
inline Numbers linear(const Numbers& x, const Numbers& weight, const Numbers& bias) {
  const std::size_t width = bias.size(), depth = weight.size() / width, rows = x.size() / depth;
  Numbers y(rows * width);
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t n = 0; n < width; ++n) {
      y[row * width + n] = bias[n];
      for (std::size_t k = 0; k < depth; ++k) y[row * width + n] += x[row * depth + k] * weight[n * depth + k];
    }
  }
  return y;
}

// The nearest number whose significand has 8 bits, the even one of two: bfloat16, but for its bounds.
inline double bfloat16(double x) {
  int exponent;
  const double significand = std::frexp(x, &exponent);
  return std::ldexp(std::nearbyint(std::ldexp(significand, 8)), exponent - 8);
}

// The same as `linear` of the rounded factors.
inline Numbers linear_bfloat16(const Numbers& x, const Numbers& weight, const Numbers& bias) {
  return linear(each(x, bfloat16), each(weight, bfloat16), bias);
}

// Rows of so many numbers, each number the nearest whole multiple of a 127th of its row's greatest.
inline Numbers quantised(Numbers x, std::size_t steps) {
  for (std::size_t at = 0; at < x.size(); at += steps) {
    double greatest = 0.0;
    for (std::size_t k = 0; k < steps; ++k) greatest = std::max(greatest, std::fabs(x[at + k]));
    for (std::size_t k = 0; k < steps && greatest > 0.0; ++k) x[at + k] = std::floor(x[at + k] * 127.0 / greatest + 0.5) * greatest / 127.0;
  }
  return x;
}

// The same as `linear` of the quantised factors.
inline Numbers linear_int8(const Numbers& x, const Numbers& weight, const Numbers& bias) {
  const std::size_t depth = weight.size() / bias.size();
  return linear(quantised(x, depth), quantised(weight, depth), bias);
}

struct Moments {
  Numbers mean, variance;
};

// x (rows, C) → of every channel
inline Moments moments(const Numbers& x, std::size_t channels) {
  Moments m{Numbers(channels), Numbers(channels)};
  const double rows = x.size() / channels;
  for (std::size_t i = 0; i < x.size(); ++i) m.mean[i % channels] += x[i] / rows;
  for (std::size_t i = 0; i < x.size(); ++i) m.variance[i % channels] += std::pow(x[i] - m.mean[i % channels], 2) / rows;
  return m;
}

// x (rows, C) → (rows, C)
inline Numbers batch_norm(Numbers x, const Numbers& gamma, const Numbers& beta, const Moments& m, double epsilon) {
  const std::size_t channels = gamma.size();
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t c = i % channels;
    x[i] = (x[i] - m.mean[c]) / std::sqrt(m.variance[c] + epsilon) * gamma[c] + beta[c];
  }
  return x;
}

struct Sides {
  int64_t height, width;
};

// 3×3 with zeros around. x (B, H, W, K), weight (N, K / groups, 3, 3), bias (N) → (B, ⌈H / stride⌉, ⌈W / stride⌉, N)
inline Numbers convolution(const Numbers& x, const Numbers& weight, const Numbers& bias, Sides in, int64_t inputs, int64_t stride,
                           bool depthwise) {
  const int64_t outputs = bias.size(), images = x.size() / (in.height * in.width * inputs);
  const Sides out{(in.height + stride - 1) / stride, (in.width + stride - 1) / stride};
  Numbers y;
  for (int64_t at = 0; at < images * out.height * out.width; ++at) {
    const int64_t image = at / (out.height * out.width), row = at / out.width % out.height, column = at % out.width;
    for (int64_t n = 0; n < outputs; ++n) {
      double sum = bias[n];
      for (int64_t tap = 0; tap < 9; ++tap) {
        const int64_t from_y = stride * row - 1 + tap / 3, from_x = stride * column - 1 + tap % 3;
        if (from_y < 0 || from_y >= in.height || from_x < 0 || from_x >= in.width) continue;
        const double* from = &x[((image * in.height + from_y) * in.width + from_x) * inputs];
        for (int64_t k = 0; k < (depthwise ? 1 : inputs); ++k) {
          sum += from[depthwise ? n : k] * weight[(n * (depthwise ? 1 : inputs) + k) * 9 + tap];
        }
      }
      y.push_back(sum);
    }
  }
  return y;
}

inline void softmax(double* row, int64_t count) {
  const double greatest = *std::max_element(row, row + count);
  double sum = 0.0;
  for (int64_t i = 0; i < count; ++i) sum += row[i] = std::exp(row[i] - greatest);
  for (int64_t i = 0; i < count; ++i) row[i] /= sum;
}

// qkv (B, N, 3·C), temperature (h) → (B, N, C)
inline Numbers cross_covariance(const Numbers& qkv, const Numbers& temperature, int64_t tokens, int64_t channels, bool normalised) {
  const int64_t heads = temperature.size(), dim = channels / heads, images = qkv.size() / (3 * tokens * channels);
  Numbers out(images * tokens * channels);
  for (int64_t item = 0; item < images * heads; ++item) {
    const int64_t image = item / heads, head = item % heads;
    const auto at = [&](int64_t which, int64_t token, int64_t i) {
      return qkv[((image * tokens + token) * 3 + which) * channels + head * dim + i];
    };
    const auto norm = [&](int64_t which, int64_t i) {
      double sum = 0.0;
      for (int64_t token = 0; token < tokens; ++token) sum += at(which, token, i) * at(which, token, i);
      return normalised ? std::max(std::sqrt(sum), 1e-12) : 1.0;
    };
    for (int64_t i = 0; i < dim; ++i) {
      Numbers attention(dim);
      for (int64_t j = 0; j < dim; ++j) {
        for (int64_t token = 0; token < tokens; ++token) attention[j] += at(0, token, i) * at(1, token, j);
        attention[j] *= temperature[head] / (norm(0, i) * norm(1, j));
      }
      softmax(attention.data(), dim);
      for (int64_t token = 0; token < tokens; ++token) {
        double& sum = out[(image * tokens + token) * channels + head * dim + i];
        for (int64_t j = 0; j < dim; ++j) sum += attention[j] * at(2, token, j);
      }
    }
  }
  return out;
}

// Of a block, in the order of operands.py.
using Parameters = std::vector<Numbers>;

using Affine = Numbers (*)(const Numbers& x, const Numbers& weight, const Numbers& bias);

// x (B, N, C), keep (3 · B) or one for all, and 26 parameters → (B, N, C); `batch`, if given, gets the batch's statistics, by
// which it normalises then.
inline Numbers block(const Numbers& x, const Numbers& keep, Sides sides, const Parameters& p, Gelu gelu, bool normalised,
                     Moments* batch, Affine affine = linear, double epsilon = 1e-6, double bn_epsilon = 1e-5) {
  enum { norm1, beta1, qkv, qkv_bias, temperature, proj, proj_bias, gamma1, norm3, beta3, conv1, conv1_bias, bn, bn_beta, conv2,
         conv2_bias, gamma3, norm2, beta2, fc1, fc1_bias, fc2, fc2_bias, gamma2, mean, variance };
  const int64_t channels = p[norm1].size(), tokens = sides.height * sides.width, images = x.size() / (tokens * channels);
  const auto add = [&](const Numbers& to, int branch, const Numbers& scale, const Numbers& value) {
    Numbers sum(to);
    for (int64_t i = 0; i < static_cast<int64_t>(to.size()); ++i) {
      const double kept = keep.size() == 1 ? keep[0] : keep[branch * images + i / (tokens * channels)];
      sum[i] += kept * scale[i % channels] * value[i];
    }
    return sum;
  };
  const Numbers projected = affine(layer_norm(x, p[norm1], p[beta1], epsilon), p[qkv], p[qkv_bias]);
  const Numbers attended = cross_covariance(projected, p[temperature], tokens, channels, normalised);
  const Numbers first = add(x, 0, p[gamma1], affine(attended, p[proj], p[proj_bias]));

  const Numbers normed = layer_norm(first, p[norm3], p[beta3], epsilon);
  const Numbers active = each(convolution(normed, p[conv1], p[conv1_bias], sides, channels, 1, true), gelu);
  if (batch) *batch = moments(active, channels);
  const Numbers normal = batch_norm(active, p[bn], p[bn_beta], batch ? *batch : Moments{p[mean], p[variance]}, bn_epsilon);
  const Numbers second =
      add(first, 1, p[gamma3], convolution(normal, p[conv2], p[conv2_bias], sides, channels, 1, true));

  const Numbers inner = affine(layer_norm(second, p[norm2], p[beta2], epsilon), p[fc1], p[fc1_bias]);
  return add(second, 2, p[gamma2], affine(each(inner, gelu), p[fc2], p[fc2_bias]));
}

// x (B, H, W, K), weight (N, K, 3, 3) and the batch norm's gamma, beta, mean, variance → (B, ⌈H / 2⌉, ⌈W / 2⌉, N)
inline Numbers stage(const Numbers& x, Sides sides, const Parameters& p, Gelu gelu, Moments* batch, double epsilon = 1e-5) {
  const int64_t outputs = p[1].size(), inputs = p[0].size() / (9 * outputs);
  const Numbers convolved = convolution(x, p[0], Numbers(outputs), sides, inputs, 2, false);
  if (batch) *batch = moments(convolved, outputs);
  const Numbers y = batch_norm(convolved, p[1], p[2], batch ? *batch : Moments{p[3], p[4]}, epsilon);
  return gelu ? each(y, gelu) : y;
}

// x (T, C), class token first; weight and bias of queries, keys and values, (C, C) and (C) → (C)
inline Numbers class_attention(const Numbers& x, const Numbers& query, const Numbers& query_bias, const Numbers& key,
                               const Numbers& value, const Numbers& value_bias, int64_t heads) {
  const int64_t channels = value_bias.size(), dim = channels / heads, all = x.size() / channels;
  const Numbers queries = linear(Numbers(x.begin(), x.begin() + channels), query, query_bias);
  const Numbers keys = linear(x, key, Numbers(channels)), values = linear(x, value, value_bias);
  Numbers mixed(channels);
  for (int64_t head = 0; head < heads; ++head) {
    Numbers scores(all);
    for (int64_t n = 0; n < all; ++n) {
      for (int64_t c = head * dim; c < (head + 1) * dim; ++c) scores[n] += queries[c] * keys[n * channels + c];
    }
    softmax(scores.data(), all);
    for (int64_t c = head * dim; c < (head + 1) * dim; ++c) {
      for (int64_t n = 0; n < all; ++n) mixed[c] += scores[n] * values[n * channels + c];
    }
  }
  return mixed;
}

// The same of images (B, T, C) by matrices one above the other, (3·C, C) and (3·C), the query scaled → (B, 1, C)
inline Numbers class_attentions(const Numbers& x, const Numbers& weight, const Numbers& bias, int64_t tokens, int64_t heads) {
  const int64_t channels = bias.size() / 3, size = tokens * channels;
  const auto third = [](const Numbers& of, int64_t which) {
    const int64_t count = of.size() / 3;
    return Numbers(of.begin() + which * count, of.begin() + (which + 1) * count);
  };
  Numbers query = third(weight, 0), query_bias = third(bias, 0), out;
  for (double& number : query) number /= std::sqrt(static_cast<double>(channels / heads));
  for (double& number : query_bias) number /= std::sqrt(static_cast<double>(channels / heads));
  for (int64_t at = 0; at < static_cast<int64_t>(x.size()); at += size) {
    const Numbers one = class_attention(Numbers(x.begin() + at, x.begin() + at + size), query, query_bias, third(weight, 1),
                                        third(weight, 2), third(bias, 2), heads);
    out.insert(out.end(), one.begin(), one.end());
  }
  return out;
}

struct ClassResult {
  Numbers cls_token, tokens;
};

// cls_token (C), tokens (N, C) of one image, parameters in the order of operands.py, weights not packed → new ones
inline ClassResult class_block(const Numbers& cls_token, const Numbers& tokens, const Parameters& p, int64_t heads, Gelu gelu,
                               bool tokens_norm, double epsilon = 1e-6) {
  enum { norm1, beta1, query, query_bias, key, value, value_bias, proj, proj_bias, norm2, beta2, fc1, fc1_bias, fc2, fc2_bias, gamma1 };
  const int64_t channels = cls_token.size();
  Numbers x(cls_token), value_plain(p[value]);
  x.insert(x.end(), tokens.begin(), tokens.end());
  for (int64_t i = 0; i < channels * channels; ++i) value_plain[i] = p[value][i % channels * channels + i / channels];
  const Numbers normed = layer_norm(x, p[norm1], p[beta1], epsilon);
  const Numbers mixed = class_attention(normed, p[query], p[query_bias], p[key], value_plain, p[value_bias], heads);
  Numbers row = linear(mixed, p[proj], p[proj_bias]);
  for (int64_t c = 0; c < channels; ++c) row[c] += cls_token[c];
  Numbers cls_out = layer_norm(row, p[norm2], p[beta2], epsilon);
  const Numbers branch = linear(each(linear(cls_out, p[fc1], p[fc1_bias]), gelu), p[fc2], p[fc2_bias]);
  for (int64_t c = 0; c < channels; ++c) cls_out[c] += branch[c];
  Numbers out(tokens);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] += p[gamma1][i % channels] * normed[channels + i];
  if (tokens_norm) out = layer_norm(out, p[norm2], p[beta2], epsilon);
  for (double& number : out) number += number;  // the official block adds the patch tokens to themselves
  return {cls_out, out};
}

}  // namespace reference
