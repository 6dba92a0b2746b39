// The weights of a linear layer as its products read them: panels of 64 outputs, stored [inputs][64].
#pragma once

#include <cstddef>
#include <cstdint>

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
  size_t width(size_t panel) const {
    const size_t left = round_up(outputs, kGroup) - panel * kPanel;
    return left < kPanel ? left : kPanel;
  }

  // The first number of a panel.
  const void* panel(size_t number) const {
    return static_cast<const char*>(panels) + number * kPanel * inputs * size_of(type);
  }

  // Where in its panel's numbers for one input an output stands. In 16 bits, the outputs n and n + 16 of a group share
  // a word of 32 bits: one mask and one shift make float32 of both.
  size_t column(size_t output) const {
    const size_t n = output % kPanel;
    return type == kFloat32 ? n : n / kGroup * kGroup + n % 16 * 2 + n % kGroup / 16;
  }

  // Where in the panels the weight of an output and an input lies.
  size_t place(size_t output, size_t input) const {
    const size_t number = output / kPanel;
    return number * kPanel * inputs + input * width(number) + column(output);
  }
};

}  // namespace alea
