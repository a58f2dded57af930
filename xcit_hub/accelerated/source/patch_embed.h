// A stage of the patch embedding: a 3×3 convolution of stride 2, its batch norm, and GELU unless it is the last stage.

#pragma once

#include <algorithm>
#include <cstdint>

#include "arguments.h"
#include "gelu.h"
#include "gemm.h"
#include "linear.h"
#include "memory.h"
#include "norms.h"
#include "operands.h"
#include "threads.h"

namespace xcit {

// The convolution as a product of windows (im2col) with the weight, and zeros around the image. x is (B, K, H, W) for the
// image itself, (B, H, W, K) for later stages; the result is (B, H / 2, W / 2, N), rounded up. A window's numbers are in the
// order row, column, channel.
struct Downsampling {
  const float* x;
  const bool image;
  const int64_t images, inputs, height, width, outputs;
  const int64_t held = 0;  // the first row of x that is there
  const int64_t rows = (height + 1) / 2, columns = (width + 1) / 2;
  const int64_t depth = 9 * inputs, pixels = rows * columns, all = images * pixels;  // of the result
  // What the product sees of every pixel beside its window, the same in every image: so many features of its row, then of
  // its column, (rows + columns, features).
  const float* beside = nullptr;
  int64_t features = 0;

  static Downsampling of(const Arguments& a, bool image, int64_t outputs) {
    return {a.floats(0), image, a.dim(0, 0), a.dim(0, image ? 1 : 3), a.dim(0, image ? 2 : 1), a.dim(0, image ? 3 : 2), outputs};
  }

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
          const float* line = x + pixel / pixels * size() + (k * height + y - held) * width + from_x;
          float* out = to + tap * inputs + k;
          for (int64_t i = 0; i < std::min(first, count); ++i) out[i * depth] = 0.0f;
          for (int64_t i = first; i < last; ++i) out[i * depth] = line[2 * i];
          for (int64_t i = std::max(first, last); i < count; ++i) out[i * depth] = 0.0f;
        }
      }
    }
  }

  // What the pixels [top, bottom) of the result see, (bottom - top, 9 · K + 2 · features); of the image, windows alone.
  void windows(int64_t top, int64_t bottom, float* to) const {
    if (image) return image_windows(top, bottom, to);
    const int64_t inputs = this->inputs;
    int64_t column = top % columns, row = top / columns % rows, which = top / pixels;
    for (int64_t pixel = top; pixel < bottom; ++pixel) {
      for (int64_t from_y = 2 * row - 1; from_y <= 2 * row + 1; ++from_y) {
        for (int64_t from_x = 2 * column - 1; from_x <= 2 * column + 1; ++from_x, to += inputs) {
          const float* from = x + which * size() + ((from_y - held) * width + from_x) * inputs;
          if (from_y < 0 || from_y >= height || from_x < 0 || from_x >= width) {
            std::fill_n(to, inputs, 0.0f);
          } else {
#pragma omp simd
            for (int64_t k = 0; k < inputs; ++k) to[k] = from[k];
          }
        }
      }
      to = std::copy_n(beside + row * features, features, to);
      to = std::copy_n(beside + (rows + column) * features, features, to);
      if (++column < columns) continue;
      column = 0;
      if (++row < rows) continue;
      row = 0;
      ++which;
    }
  }

  // out (B, H / 2, W / 2, N) = windows · packed weight, in bands of rows of windows, then the epilogue.
  template <class Epilogue>
  void run(const float* packed, float* out, const Epilogue& epilogue) const {
    run_rows(0, images * rows, packed, out, epilogue);
  }

  // The rows [first, last) of the result alone, of all images' rows; out and the epilogue's rows begin with them.
  template <class Epilogue>
  void run_rows(int64_t first, int64_t last, const float* packed, float* out, const Epilogue& epilogue) const {
    const Packed weight{packed, outputs, depth + 2 * features};
    split_bands((last - first) * columns, [&](int64_t top, int64_t bottom) {
      float* seen = workspace(Use::kBandIn, (bottom - top) * weight.depth);
      windows(first * columns + top, first * columns + bottom, seen);
      multiply_band(top, bottom - top, rows_of(seen, weight.depth), weight, out + top * outputs, epilogue);
    });
  }

  // One image's gradient from that of its windows (pixels, 9 · K): each number of x gathers from all windows it is in.
  void from_windows(const float* dwindows, float* dx) const {
    split_rows(height, width * inputs, [&](int64_t first, int64_t last) {
      const Buffer buffer(inputs);
      float* sums = buffer;
      for (int64_t y = first; y < last; ++y) {
        for (int64_t x = 0; x < width; ++x) {
          std::fill_n(sums, inputs, 0.0f);
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

// operands::FusedStem: the patch embedding in evaluation, each batch norm folded: an image → tokens with their positions.
//
// A band of rows of tokens goes through all stages at once. What a stage makes for it is dropped when the next one has
// read it, so that memory does not grow with the image; rows at its edges are computed by two bands.
template <class Form>
struct FusedStem {
  const operands::FusedStem d;
  const int64_t stages, images, channels, height, width, features;

  explicit FusedStem(const Arguments& a)
      : d(a),
        stages(a.size(d.kWidths)),
        images(a.dim(d.kX, 0)),
        channels(a.dim(d.kX, 1)),
        height(a.dim(d.kX, 2)),
        width(a.dim(d.kX, 3)),
        features(a.dim(d.kFeatures, 1)) {}

  // A stage's parameters, and the size of what it reads.
  struct Stage {
    const float *weight, *bias;
    int64_t inputs, height, width, outputs;
  };

  Stage stage(int64_t which) const {
    Stage s{d.weights, d.biases, channels, height, width, d.widths[0]};
    for (int64_t next = 1; next <= which; ++next) {
      s.weight += (s.outputs + kPanel - 1) / kPanel * kPanel * 9 * s.inputs;
      s.bias += s.outputs;
      s = {s.weight, s.bias, s.outputs, (s.height + 1) / 2, (s.width + 1) / 2, d.widths[next]};
    }
    return s;
  }

  // The rows [first, last) of what a stage makes of one image → out.
  void make(int64_t which, const float* image, int64_t first, int64_t last, float* out) const {
    const Stage s = stage(which);
    const int64_t top = which ? std::max<int64_t>(0, 2 * first - 1) : 0, bottom = std::min(s.height, 2 * last);
    const Buffer seen(which ? (bottom - top) * s.width * s.inputs : 0);
    if (which) make(which - 1, image, top, bottom, seen);
    Downsampling conv{which ? static_cast<const float*>(seen) : image, which == 0, 1, s.inputs, s.height, s.width, s.outputs, top};
    if (which == stages - 1) {
      conv.beside = d.features;
      conv.features = features;
      conv.run_rows(first, last, s.weight, out, add_bias(s.bias, out, s.outputs));
    } else {
      conv.run_rows(first, last, s.weight, out, [=, bias = s.bias, outputs = s.outputs](int64_t row) {
        float* to = out + row * outputs;
        return [=](float sum, int64_t n) { to[n] = Form::value(sum + bias[n]); };
      });
    }
  }

  void run() const {
    const Stage first = stage(0), last = stage(stages - 1);
    const int64_t rows = (last.height + 1) / 2, line = (last.width + 1) / 2 * last.outputs;  // of tokens
    const int64_t most = (first.width + 1) / 2 * first.outputs << (stages - 1);  // of the first stage for a row of them
    const int64_t team = images < Team::instance().size() ? Team::instance().size() : 1;
    const int64_t band = std::max<int64_t>(1, std::min((rows + team - 1) / team, kMostNumbers / most));
    const int64_t bands = (rows + band - 1) / band;
    Team::instance().split(images * bands, 1, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t which = item / bands, top = item % bands * band;
        make(stages - 1, d.x + which * channels * height * width, top, std::min(rows, top + band),
             d.out + (which * rows + top) * line);
      }
    });
  }

  static constexpr int64_t kMostNumbers = 1 << 20;  // 4 MB a thread
};

// A stage with its parameters as they are; see operands::Stage, StageTrain and StageGrad.
template <class Form>
struct Stage {
  const Arguments& a;
  const bool last;
  const operands::Stage d;
  const Downsampling conv;
  const int64_t outputs, depth;

  Stage(const Arguments& a, bool image, bool last)
      : a(a), last(last), d(a), conv(Downsampling::of(a, image, a.dim(operands::Stage::kWeight, 0))), outputs(conv.outputs), depth(conv.depth) {}

  // The weight (N, K, 3, 3) as (N, 9 · K) in the order of windows.
  void by_window(float* to) const {
    const float* from = d.weight;
    for (int64_t n = 0; n < outputs; ++n) {
      for (int64_t k = 0; k < conv.inputs; ++k) {
        for (int64_t tap = 0; tap < 9; ++tap) to[n * depth + tap * conv.inputs + k] = *from++;
      }
    }
  }

  const float* packed() const {
    const Buffer weight(outputs * depth);
    by_window(weight);
    return pack_weight(weight, outputs, depth, workspace(Use::kWeights, packed_size(outputs, depth))).data;
  }

  BatchNorm norm(const float* mean, const float* variance) const {
    return {outputs, d.gamma, d.beta, mean, variance, *d.epsilon};
  }

  // → out, by the running statistics. Not folded into the weight: that rounds twice, and the deepest networks show it.
  void evaluate() const {
    const Buffer factors(outputs);
    norm(d.mean, d.variance).factors(factors);
    const auto normalise = [=, mean = d.mean, beta = d.beta, factor = static_cast<const float*>(factors)](float sum, int64_t n) {
      return (sum - mean[n]) * factor[n] + beta[n];
    };
    const auto to = [=, out = d.out, width = outputs](int64_t row) { return out + row * width; };
    if (last) {
      conv.run(packed(), d.out, [=](int64_t row) {
        return [=, out = to(row)](float sum, int64_t n) { out[n] = normalise(sum, n); };
      });
    } else {
      conv.run(packed(), d.out, [=](int64_t row) {
        return [=, out = to(row)](float sum, int64_t n) { out[n] = Form::value(normalise(sum, n)); };
      });
    }
  }

  // → out, the convolution, the statistics: `moving` normalises by the batch's, else by the running ones.
  void train(bool moving) const {
    const operands::StageTrain t(a);
    float *out = t.out, *mean = t.batch_mean, *variance = t.batch_variance;
    conv.run(packed(), t.kept, keep_sums);
    if (moving) {
      batch_moments(conv.all, outputs, t.kept, mean, variance);
    } else {
      std::copy_n(d.mean, outputs, mean);
      std::copy_n(d.variance, outputs, variance);
    }
    if (last) {
      norm(mean, variance).run(conv.all, t.kept, [=](int64_t at, float value) { out[at] = value; });
    } else {
      norm(mean, variance).run(conv.all, t.kept, [=](int64_t at, float value) { out[at] = Form::value(value); });
    }
  }

  // dy → dx, dweight, dgamma, dbeta
  void backward(bool moving) const {
    const operands::StageGrad g(a);
    const float* dy = g.dy;
    float* passed = workspace(Use::kPassed, conv.all * outputs);
    if (!last) {
      norm(g.batch_mean, g.batch_variance).run(conv.all, g.kept, [=](int64_t at, float value) {
        passed[at] = dy[at] * Form::slope(value);
      });
      dy = passed;
    }
    batch_norm_grad(conv.all, outputs, g.kept, g.gamma, g.batch_mean, g.batch_variance, *g.epsilon, moving, dy, passed, g.dgamma,
                    g.dbeta);
    to_weight_and_x(passed, g.dweight, g.dx);
  }

  // Image by image: all windows at once would be nine times the input.
  void to_weight_and_x(const float* dconvolved, float* dweight, float* dx) const {
    const int64_t pixels = conv.pixels;
    const Buffer weight(outputs * depth), sum(outputs * depth, true), some(outputs * depth);
    by_window(weight);
    const Packed right =
        pack_b(rows_of(weight, depth), depth, outputs, workspace(Use::kWeights, packed_size(depth, outputs)));
    float* windows = workspace(Use::kNormed, pixels * depth);
    for (int64_t which = 0; which < conv.images; ++which) {
      const float* up = dconvolved + which * pixels * outputs;
      split_rows(pixels, depth, [&](int64_t first, int64_t last) {
        conv.windows(which * pixels + first, which * pixels + last, windows + first * depth);
      });
      multiply(outputs, depth, pixels, rows_of(up, outputs).transposed(), rows_of(windows, depth), some);
      for (int64_t i = 0; i < outputs * depth; ++i) sum[i] += some[i];
      multiply(pixels, rows_of(up, outputs), right, windows, keep_sums);
      conv.from_windows(windows, dx + which * conv.size());
    }
    for (int64_t n = 0; n < outputs; ++n) {
      for (int64_t k = 0; k < conv.inputs; ++k) {
        for (int64_t tap = 0; tap < 9; ++tap) *dweight++ = sum[n * depth + tap * conv.inputs + k];
      }
    }
  }
};

}  // namespace xcit
