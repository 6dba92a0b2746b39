// The operations of a forward pass, each with one written order for every sum: docs/definition.md, part two.
// They are compiled once for each instruction set, and give the same bits on all.
#pragma once

#include <cstddef>

#include "matrix.h"

namespace alea {

constexpr size_t kMostTileRows = 8;     // rows that are computed together, at most
constexpr size_t kBlockOfInputs = 128;  // inputs of one chain of fused operations
constexpr size_t kSlots = 16;           // positions in a block of the cache

// What one key-value head has cached of a sequence: `blocks` of 16 slots, keys [D][16], then values [16][D'], where D'
// is D rounded up to a multiple of 16.
struct Head {
  const float* const* blocks;
  size_t size;                                     // D
  size_t values() const { return size * kSlots; }  // where a block's values begin
  size_t stride() const { return round_up(size, 16); }
};

struct Operations {
  // y[m, n] = sum over k of x[m, k] w[n, k], plus the bias, for the outputs of one panel. y has room for all panels.
  void (*linear)(const Matrix& w, size_t panel, const float* x, size_t x_stride, size_t rows, float* y,
                 size_t y_stride);
  // y = x / sqrt(mean(x^2) + eps) * w
  void (*norm)(const float* x, const float* w, size_t size, float eps, float* y);
  // x = x + y
  void (*add)(float* x, const float* y, size_t size);
  // Turns channel i and i + half by their angle.
  void (*rotate)(float* x, const float* cos, const float* sin, size_t half);
  // y = silu(gate) up
  void (*swiglu)(const float* gate, const float* up, size_t size, float* y);
  // The values of a head, weighted by softmax(q k / sqrt(D)) over slots 0 .. last[m] of each row of q [rows][D], rows
  // in ascending order of `last`. work: room for
  // last[rows - 1] + 16 numbers a row, of at most kMostTileRows.
  void (*attend)(const Head& head, const float* q, const size_t* last, size_t rows, float* y, float* work);
};

}  // namespace alea
