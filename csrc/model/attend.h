// Attention of one key-value head: scores, softmax, and the weighted values, over the slots up to each row's own.
#pragma once

#include "exponential.h"
#include "linear.h"
#include "sixteen.h"

namespace alea {
namespace ALEA_NAMESPACE(ALEA_ISA) {
namespace {

// 1. Scores of up to kTileRows rows against kBlocks blocks of keys, a linear layer over the head's channels.
template <size_t kRows, size_t kBlocks>
inline void scores_of_tile(const float* const* blocks, const Head& head, const float* q, float scale, float* y,
                           size_t stride) {
  constexpr size_t kEach = 16 / kLanes, kVectors = kBlocks * kEach;
  const float* keys[kBlocks];
  for (size_t b = 0; b < kBlocks; ++b) keys[b] = blocks[b];
  for (size_t d = 0; d < head.size; d += kBlockOfInputs) {
    Tile<kRows, kVectors> tile;
    tile.add(q, head.size, d, least(d + kBlockOfInputs, head.size), [&](size_t k, Floats(&w)[kVectors]) {
#pragma GCC unroll 16
      for (size_t v = 0; v < kVectors; ++v) w[v] = load(keys[v / kEach] + k * kSlots + v % kEach * kLanes);
    });
#pragma GCC unroll 8
    for (size_t m = 0; m < kRows; ++m) tile.put(m, y + m * stride, d == 0);
  }
  for (size_t m = 0; m < kRows; ++m) {
    for (size_t i = 0; i < kBlocks * kSlots; i += kLanes) store(y + m * stride + i, load(y + m * stride + i) * scale);
  }
}

template <size_t kRows>
inline void scores_of_rows(const Head& head, const float* q, size_t count, float scale, float* y, size_t stride) {
  constexpr size_t kFew = kRows == 1 ? 4 : ALEA_TILE_VECTORS * kLanes / 16;  // blocks of keys at once
  size_t block = 0;
  for (; block + kFew <= count; block += kFew) {
    scores_of_tile<kRows, kFew>(head.blocks + block, head, q, scale, y + block * kSlots, stride);
  }
  for (; block < count; ++block) {
    scores_of_tile<kRows, 1>(head.blocks + block, head, q, scale, y + block * kSlots, stride);
  }
}

// 2. e^(score - maximum) in place of the scores 0 .. last; their sum.
inline float exponentials(float* scores, size_t last) {
  const size_t count = last + 1, whole = round_up(count, 16);
  for (size_t i = count; i < whole; ++i) scores[i] = -__builtin_inff();
  Floats top = fill(-__builtin_inff());
  for (size_t i = 0; i < whole; i += kLanes) top = greater(top, load(scores + i));
  float greatest = top[0];
  for (size_t lane = 1; lane < kLanes; ++lane) greatest = greatest > top[lane] ? greatest : top[lane];
  Sixteen sums;
  for (size_t i = 0; i < whole; i += 16) {
#pragma GCC unroll 4
    for (size_t v = 0; v < Sixteen::kVectors; ++v) {
      store(scores + i + v * kLanes, exponential(load(scores + i + v * kLanes) - greatest));
    }
    for (size_t j = count > i ? count : i; j < i + 16; ++j) scores[j] = 0;  // slots beyond take no part
    for (size_t v = 0; v < Sixteen::kVectors; ++v) sums.of[v] += load(scores + i + v * kLanes);
  }
  return sums.folded();
}

// 3. The weighted values, a linear layer over the slots up to each row's last.
template <size_t kRows, size_t kVectors>
inline void values_of_tile(const Head& head, size_t column, const float* weights, size_t stride, const size_t* last,
                           float* y) {
  const size_t shared = last[0] + 1, end = last[kRows - 1] + 1;
  for (size_t begin = 0; begin < end; begin += kBlockOfInputs) {
    Tile<kRows, kVectors> tile;
    const size_t stop = least(begin + kBlockOfInputs, end);
    for (size_t first = begin; first < stop; first += kSlots) {
      const float* const values = head.blocks[first / kSlots] + head.values() + column;
      const auto read = [&](size_t slot, Floats(&w)[kVectors]) {
#pragma GCC unroll 16
        for (size_t v = 0; v < kVectors; ++v) w[v] = load(values + (slot - first) * head.stride() + v * kLanes);
      };
      const size_t next = least(first + kSlots, stop), common = shared < first ? first : least(shared, next);
      tile.add(weights, stride, first, common, read);
      for (size_t slot = common; slot < next; ++slot) {  // only some rows see it
        Floats w[kVectors];
        read(slot, w);
        for (size_t m = 0; m < kRows; ++m) {
          if (slot > last[m]) continue;
          for (size_t v = 0; v < kVectors; ++v)
            tile.sums[m][v] = fma(fill(weights[m * stride + slot]), w[v], tile.sums[m][v]);
        }
      }
    }
    for (size_t m = 0; m < kRows; ++m) {
      if (begin <= last[m]) tile.put(m, y + m * head.stride() + column, begin == 0);
    }
  }
}

template <size_t kRows>
inline void values_of_rows(const Head& head, const float* weights, size_t stride, const size_t* last, float* y) {
  constexpr size_t kWide = kRows == 1 ? 64 : kTileOutputs;
  size_t column = 0;
  for (; column + kWide <= head.stride(); column += kWide) {
    values_of_tile<kRows, kWide / kLanes>(head, column, weights, stride, last, y);
  }
  for (; column < head.stride(); column += 16) {
    values_of_tile<kRows, 16 / kLanes>(head, column, weights, stride, last, y);
  }
}

// All steps for the rows of a tile. work: room for kRows rows of scores.
template <size_t kRows>
inline void attend_tile(const Head& head, const float* q, const size_t* last, float* y, float* work) {
  const size_t blocks = last[kRows - 1] / kSlots + 1, stride = blocks * kSlots;
  const auto scale = static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(head.size)));
  scores_of_rows<kRows>(head, q, blocks, scale, work, stride);
  float sums[kRows];
  for (size_t m = 0; m < kRows; ++m) sums[m] = exponentials(work + m * stride, last[m]);
  values_of_rows<kRows>(head, work, stride, last, y);
  // 4. Divided by the sum of the weights.
  for (size_t m = 0; m < kRows; ++m) {
    for (size_t d = 0; d < head.stride(); d += kLanes) {
      float* const to = y + m * head.stride() + d;
      store(to, load(to) / sums[m]);
    }
  }
}

inline void attend(const Head& head, const float* q, const size_t* last, size_t rows, float* y, float* work) {
  const size_t tiles = (rows + kTileRows - 1) / kTileRows;
  for (size_t t = 0, m = 0; t < tiles; ++t) {
    const size_t end = rows * (t + 1) / tiles;
    with_rows(end - m, [&](auto count) {
      attend_tile<count.value>(head, q + m * head.size, last + m, y + m * head.stride(), work);
    });
    m = end;
  }
}

}  // namespace
}  // namespace ALEA_NAMESPACE(ALEA_ISA)
}  // namespace alea
