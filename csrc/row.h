// A row of logits, the memory to work on it, and its passes with their results in that memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "buffer.h"
#include "isa.h"
#include "kept.h"

namespace alea {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kGreatest = std::numeric_limits<float>::max();
constexpr float kAll = -kGreatest;  // every token above -inf is as great

// A row of logits x[n] of one type, after step 0.
struct Row {
  const void* x;
  size_t n;
  const Passes* passes;
  const void* from(size_t i) const { return static_cast<const char*>(x) + i * passes->size; }
  size_t blocks() const { return (n + kBlock - 1) / kBlock; }
};

// Memory that one thread uses from row to row.
struct Workspace {
  Buffer<float> x;         // [V], penalised logits
  Buffer<float> maxima;    // of each block
  Buffer<float> coarse;    // of each run of blocks
  Buffer<int64_t> masses;  // of each block
  Kept kept;
};

// Step 1: the greatest logit, NaN or -inf for an invalid row; and whether there is a -inf.
inline Extremes extremes(Workspace& work, Row row) {
  work.maxima.resize(row.blocks());
  return row.passes->maxima(row.x, row.n, work.maxima.data());
}

inline int64_t total_mass(Workspace& work, Row row, float m, float inverse_temperature) {
  work.masses.resize(row.blocks());
  return row.passes->masses(row.x, row.n, m, inverse_temperature, work.maxima.data(), work.masses.data());
}

// The logits from `least` to `most`, with their mass.
inline void collect(Workspace& work, Row row, float m, float inverse_temperature, float least, float most = kGreatest) {
  Kept& kept = work.kept;
  kept.ids.resize(row.n + kMargin);
  kept.resize(row.passes->collect(row.x, row.n, work.maxima.data(), least, most, kept.ids.data()));
  if (kept.size() == row.n) {
    row.passes->widen(row.x, row.n, kept.x.data());
  } else {
    row.passes->gather(row.x, kept.ids.data(), kept.size(), kept.x.data());
  }
  row.passes->weigh(kept.x.data(), kept.size(), m, inverse_temperature, kept.d.data(), kept.w.data());
}

// The logits of one block and the mass of each.
struct Block {
  Block(Row row, size_t number, float m, float inverse_temperature)
      : begin(number * kBlock), size(std::min(kBlock, row.n - begin)) {
    float d[kBlock];
    row.passes->widen(row.from(begin), size, x);
    row.passes->weigh(x, size, m, inverse_temperature, d, w);
  }

  size_t begin, size;
  float x[kBlock];
  int64_t w[kBlock];
};

}  // namespace alea
