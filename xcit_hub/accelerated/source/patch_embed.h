// A stage of the patch embedding: a 3×3 convolution of stride 2, its batch norm, and GELU unless it is the last stage.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "arguments.h"
#include "gelu.h"
#include "norms.h"
#include "products.h"
#include "threads.h"

namespace xcit {

// The convolution, with zeros around the image. x is (B, K, H, W) for the image itself, (B, H, W, K) for later stages; the
// result is (B, H / 2, W / 2, N), rounded up. A window's numbers are in the order row, column, channel.
struct Downsampling {
  const Arguments& a;
  const bool image;
  const int64_t images, inputs, height, width, rows, columns, outputs;
  const int64_t depth = 9 * inputs, pixels = rows * columns, all = images * pixels;  // of the result
  // What the product sees of every pixel beside its window, the same in every image: (pixels, features).
  const float* beside = nullptr;
  int64_t features = 0;

  Downsampling(const Arguments& a, bool image, int64_t outputs)
      : a(a),
        image(image),
        images(a.dim(0, 0)),
        inputs(a.dim(0, image ? 1 : 3)),
        height(a.dim(0, image ? 2 : 1)),
        width(a.dim(0, image ? 3 : 2)),
        rows((height + 1) / 2),
        columns((width + 1) / 2),
        outputs(outputs) {}

  int64_t step_x() const { return image ? 1 : inputs; }
  int64_t step_c() const { return image ? height * width : 1; }
  int64_t size() const { return inputs * height * width; }  // of one image of x

  // What the pixels [top, bottom) of the result see of the image: what one tap sees of one row lies in a line.
  void image_windows(int64_t top, int64_t bottom, float* to) const {
    const int64_t depth = this->depth;
    for (int64_t pixel = top, count; pixel < bottom; pixel += count, to += count * depth) {
      const int64_t column = pixel % columns, row = pixel / columns % rows;
      count = std::min(columns - column, bottom - pixel);
      for (int64_t tap = 0; tap < 9; ++tap) {
        const int64_t y = 2 * row - 1 + tap / 3, from_x = 2 * column - 1 + tap % 3;
        const int64_t first = from_x < 0, last = y < 0 || y >= height ? 0 : std::min(count, (width - from_x + 1) / 2);
        for (int64_t k = 0; k < inputs; ++k) {
          const float* line = a.floats(0) + pixel / pixels * size() + (k * height + y) * width + from_x;
          float* out = to + tap * inputs + k;
          for (int64_t i = 0; i < std::min(first, count); ++i) out[i * depth] = 0.0f;
          for (int64_t i = first; i < last; ++i) out[i * depth] = line[2 * i];
          for (int64_t i = std::max(first, last); i < count; ++i) out[i * depth] = 0.0f;
        }
      }
    }
  }

  // What the pixels [top, bottom) of the result see, (bottom - top, 9 · K + features); of the image, windows alone.
  void windows(int64_t top, int64_t bottom, float* to) const {
    if (image) return image_windows(top, bottom, to);
    const float* x = a.floats(0);
    const int64_t inputs = this->inputs;
    int64_t column = top % columns, row = top / columns % rows, which = top / pixels;
    for (int64_t pixel = top; pixel < bottom; ++pixel) {
      for (int64_t from_y = 2 * row - 1; from_y <= 2 * row + 1; ++from_y) {
        for (int64_t from_x = 2 * column - 1; from_x <= 2 * column + 1; ++from_x, to += inputs) {
          const float* from = x + which * size() + (from_y * width + from_x) * inputs;
          if (from_y < 0 || from_y >= height || from_x < 0 || from_x >= width) {
            std::fill_n(to, inputs, 0.0f);
          } else {
#pragma omp simd
            for (int64_t k = 0; k < inputs; ++k) to[k] = from[k];
          }
        }
      }
      to = std::copy_n(beside + pixel % pixels * features, features, to);
      if (++column < columns) continue;
      column = 0;
      if (++row < rows) continue;
      row = 0;
      ++which;
    }
  }

  // out = windows · packed weight; then finish(band of out, its size) for every band that is done.
  template <class Finish>
  void run(const float* packed, float* out, const Finish& finish) const {
    const int64_t depth = this->depth + features;
    split_bands(all, [&](int64_t top, int64_t bottom) {
      float *seen = scratch(kFirst, (bottom - top) * depth), *band = out + top * outputs;
      windows(top, bottom, seen);
      multiply_band(bottom - top, outputs, depth, {seen, depth, 1}, packed, band, outputs,
                    [](int64_t, int64_t, int64_t, int64_t) {});
      finish(band, (bottom - top) * outputs);
    });
  }

  // One image's gradient from that of its windows (pixels, 9 · K): each number of x gathers from all windows it is in.
  void from_windows(const float* dwindows, float* dx) const {
    split_rows(height, width * inputs, [&](int64_t first, int64_t last) {
      std::vector<float> sums(inputs);
      for (int64_t y = first; y < last; ++y) {
        for (int64_t x = 0; x < width; ++x) {
          std::fill(sums.begin(), sums.end(), 0.0f);
          for (int64_t row = y / 2; row <= std::min((y + 1) / 2, rows - 1); ++row) {
            for (int64_t column = x / 2; column <= std::min((x + 1) / 2, columns - 1); ++column) {
              const int64_t tap = (y - 2 * row + 1) * 3 + x - 2 * column + 1;
              const float* from = dwindows + (row * columns + column) * depth + tap * inputs;
#pragma omp simd
              for (int64_t k = 0; k < inputs; ++k) sums[k] += from[k];
            }
          }
          float* to = dx + (y * width + x) * step_x();
          for (int64_t k = 0; k < inputs; ++k) to[k * step_c()] = sums[k];
        }
      }
    });
  }
};

// Add the bias, then apply GELU unless it is the last stage.
template <class Form>
void finish_stage(float* band, int64_t size, const float* bias, int64_t outputs, bool last) {
  for (int64_t at = 0; at < size; at += outputs) {
    if (last) {
#pragma omp simd
      for (int64_t j = 0; j < outputs; ++j) band[at + j] += bias[j];
    } else {
#pragma omp simd
      for (int64_t j = 0; j < outputs; ++j) band[at + j] = Form::value(band[at + j] + bias[j]);
    }
  }
}

// x, packed weight of (N, 9 · K), bias (N), the batch norm folded into both → the stage's result, in evaluation. At the last
// stage features of the position (H · W / 4, F) besides, for which the weight has F more columns.
template <class Form>
void fused_stage(const Arguments& a, bool image, bool last) {
  Downsampling conv(a, image, a.dim(2, 0));
  if (last) {
    conv.beside = a.floats(3);
    conv.features = a.dim(3, 1);
  }
  conv.run(a.floats(1), a.floats(last ? 4 : 3), [&](float* band, int64_t size) {
    finish_stage<Form>(band, size, a.floats(2), conv.outputs, last);
  });
}

// A stage with its parameters as they are.
template <class Form>
struct Stage {
  // In the order of operations.stage in Python; then what the operation puts out, or what its gradient takes and puts out.
  enum Operand { kX, kWeight, kEpsilon, kGamma, kBeta, kMean, kVariance, kOut, kConvolved, kBatchMean, kBatchVariance };
  enum Gradient { kKept = kOut, kKeptMean, kKeptVariance, kDy, kDx, kDWeight, kDGamma, kDBeta };

  const Arguments& a;
  const bool last;
  const Downsampling conv;
  const int64_t outputs, depth;

  Stage(const Arguments& a, bool image, bool last)
      : a(a), last(last), conv(a, image, a.dim(kWeight, 0)), outputs(conv.outputs), depth(conv.depth) {}

  // The weight (N, K, 3, 3) as (N, 9 · K) in the order of windows.
  std::vector<float> by_window() const {
    std::vector<float> out(outputs * depth);
    const float* weight = a.floats(kWeight);
    for (int64_t n = 0; n < outputs; ++n) {
      for (int64_t k = 0; k < conv.inputs; ++k) {
        for (int64_t tap = 0; tap < 9; ++tap) out[n * depth + tap * conv.inputs + k] = *weight++;
      }
    }
    return out;
  }

  const float* packed() const {
    float* out = scratch(kPrepared, packed_size(outputs, depth));
    pack_right({by_window().data(), 1, depth}, outputs, depth, out);
    return out;
  }

  BatchNorm norm(const float* mean, const float* variance) const {
    return {outputs, a.floats(kGamma), a.floats(kBeta), mean, variance, *a.floats(kEpsilon)};
  }

  void evaluate() const {
    const float *mean = a.floats(kMean), *beta = a.floats(kBeta);
    std::vector<float> factors(outputs);
    norm(mean, a.floats(kVariance)).factors(factors.data());
    const float* factor = factors.data();
    // Not folded into the weight: that rounds twice, and the deepest networks show it.
    conv.run(packed(), a.floats(kOut), [&](float* band, int64_t size) {
      for (int64_t at = 0; at < size; at += outputs) {
#pragma omp simd
        for (int64_t n = 0; n < outputs; ++n) band[at + n] = (band[at + n] - mean[n]) * factor[n] + beta[n];
      }
      if (last) return;
#pragma omp simd
      for (int64_t i = 0; i < size; ++i) band[i] = Form::value(band[i]);
    });
  }

  // `moving` normalises by the batch's statistics, else by the running ones.
  void train(bool moving) const {
    float *out = a.floats(kOut), *convolved = a.floats(kConvolved);
    float *mean = a.floats(kBatchMean), *variance = a.floats(kBatchVariance);
    conv.run(packed(), convolved, [](float*, int64_t) {});
    if (moving) {
      batch_moments(conv.all, outputs, convolved, mean, variance);
    } else {
      std::copy_n(a.floats(kMean), outputs, mean);
      std::copy_n(a.floats(kVariance), outputs, variance);
    }
    if (last) {
      norm(mean, variance).run(conv.all, convolved, [=](int64_t at, float value) { out[at] = value; });
    } else {
      norm(mean, variance).run(conv.all, convolved, [=](int64_t at, float value) { out[at] = Form::value(value); });
    }
  }

  void backward(bool moving) const {
    const float *convolved = a.floats(kKept), *mean = a.floats(kKeptMean), *variance = a.floats(kKeptVariance);
    const float* dy = a.floats(kDy);
    float* passed = scratch(kPassed, conv.all * outputs);
    if (!last) {
      norm(mean, variance).run(conv.all, convolved, [=](int64_t at, float value) { passed[at] = dy[at] * Form::slope(value); });
      dy = passed;
    }
    batch_norm_grad(conv.all, outputs, convolved, a.floats(kGamma), mean, variance, *a.floats(kEpsilon), moving, dy, passed,
                    a.floats(kDGamma), a.floats(kDBeta));
    to_weight_and_x(passed);
  }

  // Image by image: all windows at once would be nine times the input.
  void to_weight_and_x(const float* dconvolved) const {
    const int64_t pixels = conv.pixels;
    const std::vector<float> weight = by_window();
    float* right = scratch(kPrepared, packed_size(depth, outputs));
    pack_right({weight.data(), depth, 1}, depth, outputs, right);
    float *windows = scratch(kNormed, pixels * depth), *some = scratch(kActive, outputs * depth);
    std::vector<float> dweight(outputs * depth, 0.0f);
    for (int64_t which = 0; which < conv.images; ++which) {
      const float* up = dconvolved + which * pixels * outputs;
      split_rows(pixels, depth, [&](int64_t first, int64_t last) {
        conv.windows(which * pixels + first, which * pixels + last, windows + first * depth);
      });
      multiply(outputs, depth, pixels, {up, 1, outputs}, {windows, depth, 1}, nullptr, some);
      for (int64_t i = 0; i < outputs * depth; ++i) dweight[i] += some[i];
      split_bands(pixels, [&](int64_t top, int64_t bottom) {
        multiply_band(bottom - top, depth, outputs, {up + top * outputs, outputs, 1}, right, windows + top * depth, depth,
                      [](int64_t, int64_t, int64_t, int64_t) {});
      });
      conv.from_windows(windows, a.floats(kDx) + which * conv.size());
    }
    float* to = a.floats(kDWeight);
    for (int64_t n = 0; n < outputs; ++n) {
      for (int64_t k = 0; k < conv.inputs; ++k) {
        for (int64_t tap = 0; tap < 9; ++tap) *to++ = dweight[n * depth + tap * conv.inputs + k];
      }
    }
  }
};

}  // namespace xcit
