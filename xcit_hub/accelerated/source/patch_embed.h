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

  int64_t size() const { return inputs * height * width; }  // of one image of x

  // What the pixels [top, bottom) of the result see of the image: what one tap sees of one row lies in a line.
  void image_windows(int64_t top, int64_t bottom, int64_t stride, float* to) const {
    for (int64_t pixel = top, count; pixel < bottom; pixel += count, to += count * stride) {
      const int64_t column = pixel % columns, row = pixel / columns % rows;
      count = std::min(columns - column, bottom - pixel);
      for (int64_t tap = 0; tap < 9; ++tap) {
        const int64_t y = 2 * row - 1 + tap / 3, from_x = 2 * column - 1 + tap % 3;
        const int64_t first = from_x < 0, last = y < 0 || y >= height ? 0 : std::min(count, (width - from_x + 1) / 2);
        for (int64_t k = 0; k < inputs; ++k) {
          const float* line = x + pixel / pixels * size() + (k * height + y - held) * width + from_x;
          float* out = to + tap * inputs + k;
          for (int64_t i = 0; i < std::min(first, count); ++i) out[i * stride] = 0.0f;
          for (int64_t i = first; i < last; ++i) out[i * stride] = line[2 * i];
          for (int64_t i = std::max(first, last); i < count; ++i) out[i * stride] = 0.0f;
        }
      }
      for (int64_t i = 0; i < count; ++i) std::fill(to + i * stride + depth, to + (i + 1) * stride, 0.0f);
    }
  }

  // What the pixels [top, bottom) of the result see, rows of `stride` numbers: 9 · K + 2 · features and zeros; of the image,
  // windows alone.
  void windows(int64_t top, int64_t bottom, int64_t stride, float* to) const {
    if (image) return image_windows(top, bottom, stride, to);
    const int64_t inputs = this->inputs, line = 3 * inputs;
    int64_t column = top % columns, row = top / columns % rows, which = top / pixels;
    for (int64_t pixel = top; pixel < bottom; ++pixel, to += stride) {
      const int64_t from_x = 2 * column - 1, first = from_x < 0 ? inputs : 0, last = std::min(line, (width - from_x) * inputs);
      for (int64_t down = 0; down < 3; ++down) {  // what a window sees of a row lies in a line
        const int64_t y = 2 * row - 1 + down;
        const float* from = x + which * size() + ((y - held) * width + from_x) * inputs;
        float* out = to + down * line;
        if (y < 0 || y >= height) {
          std::fill_n(out, line, 0.0f);
          continue;
        }
        if (first) std::fill_n(out, first, 0.0f);
        if (last < line) std::fill_n(out + last, line - last, 0.0f);
#pragma omp simd
        for (int64_t i = first; i < last; ++i) out[i] = from[i];
      }
      float* rest = std::copy_n(beside + row * features, features, to + depth);
      rest = std::copy_n(beside + (rows + column) * features, features, rest);
      std::fill(rest, to + stride, 0.0f);
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
      windows(first * columns + top, first * columns + bottom, weight.depth, seen);
      multiply_band(top, bottom - top, rows_of(seen, weight.depth), weight, out + top * outputs, epilogue);
    });
  }

  // The gradients of the rows [first, last) of one image's windows, rows of `stride` numbers → what they add up to in the rows
  // [top, bottom) of dx.
  void add_windows(const float* dwindows, int64_t stride, int64_t first, int64_t last, int64_t top, int64_t bottom, float* dx) const {
    const int64_t inputs = this->inputs, lines = image ? inputs : 1, line = width * inputs / lines;
    for (int64_t k = 0; k < lines; ++k) std::fill_n(dx + (k * height + top) * line, (bottom - top) * line, 0.0f);
    for (int64_t pixel = first * columns; pixel < last * columns; ++pixel, dwindows += stride) {
      const int64_t row = pixel / columns, from_x = 2 * (pixel % columns) - 1;
      const int64_t left = from_x < 0, right = std::min<int64_t>(3, width - from_x);  // taps that lie inside
      for (int64_t down = 0; down < 3; ++down) {
        const int64_t y = 2 * row - 1 + down;
        if (y < top || y >= bottom) continue;
        const float* from = dwindows + down * 3 * inputs;
        if (image) {
          for (int64_t tap = left; tap < right; ++tap) {
            for (int64_t k = 0; k < inputs; ++k) dx[(k * height + y) * width + from_x + tap] += from[tap * inputs + k];
          }
        } else {
          float* to = dx + (y * width + from_x) * inputs;
#pragma omp simd
          for (int64_t i = left * inputs; i < right * inputs; ++i) to[i] += from[i];
        }
      }
    }
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

  // The weight (N, K, 3, 3) as (N, 9 · K) in the order of windows, rows of `stride` numbers.
  void by_window(int64_t stride, float* to) const {
    const float* from = d.weight;
    for (int64_t n = 0; n < outputs; ++n) {
      for (int64_t k = 0; k < conv.inputs; ++k) {
        for (int64_t tap = 0; tap < 9; ++tap) to[n * stride + tap * conv.inputs + k] = *from++;
      }
    }
  }

  const float* packed() const {
    const Buffer weight(outputs * depth);
    by_window(depth, weight);
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
    const float* convolved = before_norm(g, moving, g.dgamma, g.dbeta);
    to_weight(convolved, g.dweight);
    to_x(convolved, g.dx);
  }

  // The same of the first stage apart from dx, which is the image's: hardly anybody asks for it.
  void backward_to_parameters(bool moving) const {
    const operands::FirstStageGrad g(a);
    to_weight(before_norm(g, moving, g.dgamma, g.dbeta), g.dweight);
  }

  void backward_to_image(bool moving) const {
    const operands::ImageGrad g(a);
    const Buffer unwanted(2 * outputs);
    to_x(before_norm(g, moving, unwanted, unwanted + outputs), g.dx);
  }

  // dy → the gradient of the convolution's result, dgamma, dbeta
  template <class Gradient>
  const float* before_norm(const Gradient& g, bool moving, float* dgamma, float* dbeta) const {
    const BatchNorm norm = this->norm(g.batch_mean, g.batch_variance);
    float* passed = workspace(Use::kPassed, conv.all * outputs);
    const auto through = [&](const auto& up) {
      batch_norm_grad(norm, conv.all, g.kept, moving, up, [](int64_t, float number) { return number; }, passed, dgamma, dbeta);
    };
    if (last) {
      through([dy = g.dy](int64_t at, float) { return dy[at]; });
    } else {
      through([dy = g.dy](int64_t at, float value) { return dy[at] * Form::slope(value); });
    }
    return passed;
  }

  // dy (B · pixels, N) → dweight (N, K, 3, 3). A few windows at a time, which stay in a core's cache.
  void to_weight(const float* dy, float* dweight) const {
    const int64_t stride = whole_registers(depth), columns = conv.columns;
    const Buffer sums(outputs * stride);
    sum_rows(conv.images * conv.rows, outputs * stride, sums, [&](int64_t first, int64_t last, float* sum) {
      float* seen = workspace(Use::kBandIn, kKC * stride);
      for (int64_t top = first * columns, bottom; top < last * columns; top = bottom) {
        bottom = std::min(last * columns, top + kKC);
        conv.windows(top, bottom, stride, seen);
        add_product(outputs, stride, bottom - top, dy + top * outputs, seen, sum);
      }
    }, std::max<int64_t>(1, 2 * kKC / columns));
    for (int64_t n = 0; n < outputs; ++n) {
      for (int64_t k = 0; k < conv.inputs; ++k) {
        for (int64_t tap = 0; tap < 9; ++tap) *dweight++ = sums[n * stride + tap * conv.inputs + k];
      }
    }
  }

  // dy (B · pixels, N) → dx, in bands of rows of windows. A band makes rows of x of its own, to which the next one's first row
  // of windows adds as well.
  void to_x(const float* dy, float* dx) const {
    const int64_t stride = whole_registers(depth), rows = conv.rows, columns = conv.columns;
    const Buffer weight(outputs * stride, true);
    by_window(stride, weight);
    const Packed right =
        pack_b(rows_of(weight, stride), stride, outputs, workspace(Use::kWeights, packed_size(stride, outputs)));
    const int64_t band = std::min(rows, std::max<int64_t>(1, kBandNumbers / (columns * stride))), bands = (rows + band - 1) / band;
    Team::instance().split(conv.images * bands, 1, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t which = item / bands, first = item % bands * band, last = std::min(rows, first + band);
        const int64_t seen = std::min(rows, last + 1), count = (seen - first) * columns;
        float* dwindows = workspace(Use::kBandIn, count * stride);
        multiply_band(0, count, rows_of(dy + (which * rows + first) * columns * outputs, outputs), right, dwindows, keep_sums);
        conv.add_windows(dwindows, stride, first, seen, 2 * first, last < rows ? 2 * last : conv.height, dx + which * conv.size());
      }
    });
  }

  static constexpr int64_t kBandNumbers = 1 << 17;  // half a megabyte
};

}  // namespace xcit
