// Weights into panels and back, and single ones as float32.
#pragma once

#include <algorithm>
#include <cstring>

#include "matrix.h"

namespace alea {

// Numbers that the panels of a matrix take.
inline size_t panel_size(size_t outputs, size_t inputs) { return round_up(outputs, kGroup) * inputs; }

// One float32 of the bits of a type.
inline float widened(const void* numbers, Type type, size_t i) {
  float value;
  if (type == kFloat32) {
    std::memcpy(&value, static_cast<const char*>(numbers) + 4 * i, sizeof value);
    return value;
  }
  uint16_t half;
  std::memcpy(&half, static_cast<const char*>(numbers) + 2 * i, sizeof half);
  uint32_t bits = static_cast<uint32_t>(half) << 16;
  if (type == kFloat16) {
    // Exponent and fraction to their place; 2^112 corrects the exponent's bias, exactly, subnormals too.
    bits = (half & 0x7FFFu) << 13;
    std::memcpy(&value, &bits, sizeof value);
    value *= 0x1p+112f;
    std::memcpy(&bits, &value, sizeof bits);
    if (value >= 65536.0f) bits |= 0x7F800000;  // infinity and NaN
    bits |= (half & 0x8000u) << 16;
  }
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Calls visit(place, index) for each weight: its place in the panels, and its index in [outputs][inputs]. A few inputs
// of all outputs of a panel follow each other, so that both sides stay in the cache.
template <typename Visit>
void for_weights(const Matrix& matrix, Visit visit) {
  constexpr size_t kInputs = 16;
  for (size_t first = 0; first < matrix.outputs; first += kPanel) {
    const size_t end = std::min(first + kPanel, matrix.outputs), width = matrix.width(first / kPanel);
    for (size_t begin = 0; begin < matrix.inputs; begin += kInputs) {
      const size_t stop = std::min(begin + kInputs, matrix.inputs);
      for (size_t n = first; n < end; ++n) {
        const size_t place = matrix.place(n, 0);
        for (size_t k = begin; k < stop; ++k) visit(place + k * width, n * matrix.inputs + k);
      }
    }
  }
}

// Copies weights [outputs][inputs] into their places; Number has their size.
template <typename Number>
void pack(const Matrix& shape, const Number* weights, Number* panels) {
  std::memset(panels, 0, panel_size(shape.outputs, shape.inputs) * sizeof(Number));
  for_weights(shape, [&](size_t place, size_t i) { panels[place] = weights[i]; });
}

template <typename Number>
void unpack(const Matrix& packed, Number* weights) {
  const auto* const panels = static_cast<const Number*>(packed.panels);
  for_weights(packed, [&](size_t place, size_t i) { weights[i] = panels[place]; });
}

}  // namespace alea
