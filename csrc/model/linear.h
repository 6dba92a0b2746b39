// The product of rows with a matrix: chains of fused multiply-adds over blocks of 128 inputs, whose sums are added in
// order. Vectors run over outputs, never over inputs, so each sum has the same order at every vector width.
#pragma once

#include "fused.h"
#include "operations.h"

namespace alea {
namespace ALEA_NAMESPACE(ALEA_ISA) {
namespace {

static_assert(ALEA_TILE_ROWS <= kMostTileRows);
constexpr size_t kTileRows = ALEA_TILE_ROWS;                 // rows of a tile, so that its sums stay in registers
constexpr size_t kTileOutputs = ALEA_TILE_VECTORS * kLanes;  // outputs of a tile of several rows
constexpr size_t kAhead = 4096;                              // bytes that weights are asked for before their turn

// The running sums of some rows and outputs.
template <size_t kRows, size_t kVectors>
struct Tile {
  Floats sums[kRows][kVectors] = {};

  // Adds the products of the inputs first .. end - 1; weights(k, w) gives input k's weights of all outputs.
  template <typename Weights>
  void add(const float* x, size_t stride, size_t first, size_t end, Weights weights) {
    for (size_t k = first; k < end; ++k) {
      Floats w[kVectors];
      weights(k, w);
#pragma GCC unroll 8
      for (size_t m = 0; m < kRows; ++m) {
        const Floats from = fill(x[m * stride + k]);
#pragma GCC unroll 16
        for (size_t v = 0; v < kVectors; ++v) sums[m][v] = fma(from, w[v], sums[m][v]);
      }
    }
  }

  // Writes the sums of the first block, or adds those of a later one.
  void put(size_t m, float* y, bool is_first) const {
#pragma GCC unroll 16
    for (size_t v = 0; v < kVectors; ++v) {
      store(y + v * kLanes, is_first ? sums[m][v] : load(y + v * kLanes) + sums[m][v]);
    }
  }
};

// The weights of one input in a panel, from some output on.
struct Float32 {
  static constexpr size_t kUnit = kLanes;  // outputs that are read together
  static constexpr size_t kSize = 4;       // bytes of a weight
  template <size_t kVectors>
  static void read(const void* panel, size_t i, Floats (&w)[kVectors]) {
#pragma GCC unroll 16
    for (size_t v = 0; v < kVectors; ++v) w[v] = load(static_cast<const float*>(panel) + i + v * kLanes);
  }
};

// Words with the output n of a group in the low half, n + 16 in the high half.
template <typename Half>
struct Words {
  static constexpr size_t kUnit = kGroup;
  static constexpr size_t kSize = 2;
  template <size_t kVectors>
  static void read(const void* panel, size_t i, Floats (&w)[kVectors]) {
    constexpr size_t kEach = 16 / kLanes;  // vectors of words in a group
    static_assert(kVectors % (2 * kEach) == 0);
#pragma GCC unroll 8
    for (size_t group = 0; group < kVectors; group += 2 * kEach) {
#pragma GCC unroll 8
      for (size_t v = 0; v < kEach; ++v) {
        Integers words;
        std::memcpy(&words, static_cast<const uint16_t*>(panel) + i + (group + 2 * v) * kLanes, sizeof words);
        w[group + v] = Half::widen(words << 16);
        w[group + kEach + v] = Half::widen(words & (int32_t)0xFFFF0000);
      }
    }
  }
};

struct Bfloat16Bits {
  static Floats widen(Integers high) { return (Floats)high; }
};

struct Float16Bits {
  static Floats widen(Integers high) {
    // The sign stays, exponent and fraction move to their place; 2^112 corrects the exponent's bias. Exact.
    const Floats value = (Floats)(high >> 3 & (int32_t)0x8FFFE000) * 0x1p+112f;
    const Integers magnitude = (Integers)value & 0x7FFFFFFF;
    const Integers is_special = magnitude >= 0x47800000;  // 65536: infinity and NaN
    return (Floats)((Integers)value | (is_special & 0x7F800000));
  }
};

using Bfloat16 = Words<Bfloat16Bits>;
using Float16 = Words<Float16Bits>;

// A slab: some inputs of some outputs of a panel, against any number of rows.
struct Slab {
  const void* weights;
  size_t width;  // outputs of the panel, the distance between two inputs
  size_t inputs;
  bool is_first;  // of the panel's blocks
};

template <typename Weights, size_t kRows, size_t kVectors, bool kAsk>
inline void tile(const Slab& slab, size_t column, const float* x, size_t x_stride, float* y, size_t y_stride) {
  Tile<kRows, kVectors> tile;
  tile.add(x, x_stride, 0, slab.inputs, [&](size_t k, Floats(&w)[kVectors]) {
    const size_t i = k * slab.width + column;
    Weights::read(slab.weights, i, w);
    if constexpr (kAsk) {
      constexpr size_t size = Weights::kSize;
      const char* const next = static_cast<const char*>(slab.weights) + i * size + kAhead;
#pragma GCC unroll 4
      for (size_t line = 0; line < kVectors * kLanes * size; line += 64) __builtin_prefetch(next + line);
    }
  });
#pragma GCC unroll 8
  for (size_t m = 0; m < kRows; ++m) tile.put(m, y + m * y_stride, slab.is_first);
}

// Calls visit with the number of rows, 1 .. kTileRows, as a constant of the compiler.
template <size_t kValue>
struct Constant {
  static constexpr size_t value = kValue;
};

template <size_t kRows = 1, typename Visit>
inline void with_rows(size_t rows, Visit visit) {
  if constexpr (kRows < kTileRows) {
    if (rows > kRows) return with_rows<kRows + 1>(rows, visit);
  }
  visit(Constant<kRows>{});
}

// kVectors vectors of outputs, from `column` on, for up to kTileRows rows.
template <typename Weights, size_t kVectors, bool kAsk>
inline void rows_of_tile(const Slab& slab, size_t column, const float* x, size_t x_stride, size_t rows, float* y,
                         size_t y_stride) {
  with_rows(rows, [&](auto count) {
    tile<Weights, count.value, kVectors, kAsk>(slab, column, x, x_stride, y + column, y_stride);
  });
}

// All rows against a slab, in tiles of nearly equal height.
template <typename Weights, size_t kOutputs>
inline void multiply(const Slab& slab, const float* x, size_t x_stride, size_t rows, float* y, size_t y_stride) {
  constexpr size_t kUnit = Weights::kUnit;
  constexpr size_t kWide = kOutputs > kUnit ? kOutputs : kUnit;
  const size_t tiles = (rows + kTileRows - 1) / kTileRows;
  for (size_t t = 0, m = 0; t < tiles; ++t) {
    const size_t end = rows * (t + 1) / tiles;
    size_t column = 0;
    for (; column + kWide <= slab.width; column += kWide) {
      const float* const from = x + m * x_stride;
      float* const to = y + m * y_stride;
      if (t == 0) {
        rows_of_tile<Weights, kWide / kLanes, true>(slab, column, from, x_stride, end - m, to, y_stride);
      } else {
        rows_of_tile<Weights, kWide / kLanes, false>(slab, column, from, x_stride, end - m, to, y_stride);
      }
    }
    for (; column < slab.width; column += kUnit) {  // the half of a panel
      rows_of_tile<Weights, kUnit / kLanes, false>(slab, column, x + m * x_stride, x_stride, end - m, y + m * y_stride,
                                                   y_stride);
    }
    m = end;
  }
}

// The numbers of a slab as float32, input after input.
template <typename Weights>
inline void widen(const Slab& slab, float* wide) {
  constexpr size_t kVectors = kGroup / kLanes;
  for (size_t i = 0; i < slab.inputs * slab.width; i += kGroup) {
    Floats w[kVectors];
    Weights::read(slab.weights, i, w);
#pragma GCC unroll 8
    for (size_t v = 0; v < kVectors; ++v) store(wide + i + v * kLanes, w[v]);
  }
}

template <typename Weights>
inline void panel_of(const Matrix& matrix, size_t panel, const float* x, size_t x_stride, size_t rows, float* y,
                     size_t y_stride) {
  alignas(64) float wide[kBlockOfInputs * kPanel];
  constexpr size_t size = Weights::kSize;
  const size_t width = matrix.width(panel);
  for (size_t k = 0; k < matrix.inputs; k += kBlockOfInputs) {
    const void* const weights = static_cast<const char*>(matrix.panel(panel)) + k * width * size;
    Slab slab{weights, width, least(kBlockOfInputs, matrix.inputs - k), k == 0};
    if (rows == 1) {
      multiply<Weights, kPanel>(slab, x + k, x_stride, rows, y, y_stride);
    } else if (size == 4 || rows <= ALEA_WIDEN_IN_TILES) {
      multiply<Weights, kTileOutputs>(slab, x + k, x_stride, rows, y, y_stride);
    } else {  // the tiles would widen the same weights again
      widen<Weights>(slab, wide);
      slab.weights = wide;
      multiply<Float32, kTileOutputs>(slab, x + k, x_stride, rows, y, y_stride);
    }
  }
}

inline void linear(const Matrix& w, size_t panel, const float* x, size_t x_stride, size_t rows, float* y,
                   size_t y_stride) {
  y += panel * kPanel;
  if (w.type == kFloat32) panel_of<Float32>(w, panel, x, x_stride, rows, y, y_stride);
  if (w.type == kFloat16) panel_of<Float16>(w, panel, x, x_stride, rows, y, y_stride);
  if (w.type == kBfloat16) panel_of<Bfloat16>(w, panel, x, x_stride, rows, y, y_stride);
  if (!w.bias) return;
  for (size_t m = 0; m < rows; ++m)
    add(y + m * y_stride, w.bias + panel * kPanel, least(kPanel, w.outputs - panel * kPanel));
}

}  // namespace
}  // namespace ALEA_NAMESPACE(ALEA_ISA)
}  // namespace alea
