// The weights of a linear layer as its products read them: panels of 64 outputs, stored [inputs][64].
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "../isa.h"

namespace alea {

constexpr size_t kPanel = 64;  // outputs in a panel; the last one has 32 where no more are left
constexpr size_t kGroup = 32;  // outputs that are stored together in 16 bits

inline size_t round_up(size_t n, size_t step) { return (n + step - 1) / step * step; }

inline size_t size_of(Type type) { return type == kFloat32 ? 4 : 2; }

// float32, or the bits of float16 or bfloat16.
struct Matrix {
  const void* panels = nullptr;
  Type type = kFloat32;
  size_t outputs = 0, inputs = 0;
  const float* bias = nullptr;  // [outputs], or null

  size_t panel_count() const { return (outputs + kPanel - 1) / kPanel; }
  size_t width(size_t panel) const { return std::min(kPanel, round_up(outputs, kGroup) - panel * kPanel); }

  // The first number of a panel.
  const void* panel(size_t number) const {
    return static_cast<const char*>(panels) + number * kPanel * inputs * size_of(type);
  }

  // Where in the panels the weight of an output and an input lies. In 16 bits, the outputs n and n + 16 of a group
  // share a word of 32 bits: one mask and one shift make float32 of both.
  size_t place(size_t output, size_t input) const {
    const size_t number = output / kPanel, column = output % kPanel, w = width(number);
    const size_t begin = number * kPanel * inputs + input * w;
    if (type == kFloat32) return begin + column;
    return begin + column / kGroup * kGroup + column % 16 * 2 + column % kGroup / 16;
  }
};

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

// Copies weights [outputs][inputs] into their places; Number has their size.
template <typename Number>
void pack(const Matrix& shape, const Number* weights, Number* panels) {
  std::memset(panels, 0, panel_size(shape.outputs, shape.inputs) * sizeof(Number));
  for (size_t n = 0; n < shape.outputs; ++n) {
    for (size_t k = 0; k < shape.inputs; ++k) panels[shape.place(n, k)] = weights[n * shape.inputs + k];
  }
}

template <typename Number>
void unpack(const Matrix& packed, Number* weights) {
  const auto* const panels = static_cast<const Number*>(packed.panels);
  for (size_t n = 0; n < packed.outputs; ++n) {
    for (size_t k = 0; k < packed.inputs; ++k) weights[n * packed.inputs + k] = panels[packed.place(n, k)];
  }
}

}  // namespace alea
