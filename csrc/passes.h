// The passes over a whole row of logits: the only code whose time grows with the vocabulary.
//
// Written once, with vectors of ALEA_LANES floats (a GCC and Clang extension); passes_*.cpp compile it for one kind of
// processor each, and isa.h chooses among them at run time. Every lane does what fixed_point.h does for one number.
//
// No function of the standard library but memcpy is called here: a copy of it, compiled for AVX-512 in this file, might
// be the one that the linker keeps for all.
#include <cstring>
#include <limits>

#include "isa.h"

#define ALEA_CONCAT(a, b) a##b
#define ALEA_NAMESPACE(isa) ALEA_CONCAT(passes_, isa)

namespace alea {
namespace ALEA_NAMESPACE(ALEA_ISA) {
namespace {

using Floats [[gnu::vector_size(4 * ALEA_LANES)]] = float;
using Integers [[gnu::vector_size(4 * ALEA_LANES)]] = int32_t;
using Masses [[gnu::vector_size(8 * ALEA_LANES)]] = int64_t;

constexpr size_t kLanes = ALEA_LANES;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

inline size_t least(size_t a, size_t b) { return a < b ? a : b; }
inline float most(float a, float b) { return a > b ? a : b; }

inline Floats fill(float value) { return Floats{} + value; }

inline Floats load(const float* x) {
  Floats lanes;
  std::memcpy(&lanes, x, sizeof lanes);
  return lanes;
}

// The last lanes of a row, filled up with -inf, which has no mass and is never a maximum.
inline Floats load(const float* x, size_t count) {
  Floats lanes = fill(-kInfinity);
  std::memcpy(&lanes, x, least(count, kLanes) * sizeof(float));
  return lanes;
}

template <typename Visit>
inline void for_lanes(const float* x, size_t count, Visit visit) {
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) visit(load(x + i), i);
  if (i < count) visit(load(x + i, count - i), i);
}

inline Floats distance(Floats x, float m, float inverse_temperature) {
  const Floats d = (x - m) * inverse_temperature;
  return d > -60.0f ? d : fill(-60.0f);
}

inline Masses weight(Floats d) {
  // Below -40 every weight is 0, and at -40 the shift still is below 64.
  d = d > -40.0f ? d : fill(-40.0f);
  // 1. d = k ln 2 + r
  const Floats shifted = d * 0x1.715476p+0f + 0x1.8p+23f;
  const Floats k = shifted - 0x1.8p+23f;
  const Floats r = (d - k * 0x1.62e400p-1f) - k * 0x1.7f7d1cp-20f;
  // 2. e^r
  Floats q = fill(0x1.0fa834p-7f);
  q = q * r + 0x1.573a54p-5f;
  q = q * r + 0x1.555a6ap-3f;
  q = q * r + 0x1.fffdc6p-2f;
  q = q * r + 0x1.fffff6p-1f;
  q = q * r + 1.0f;
  // 3. 2^40 2^k e^r
  const Integers significand = __builtin_convertvector(q * 0x1p+24f, Integers);
  const Integers right = -__builtin_convertvector(k, Integers);
  return (__builtin_convertvector(significand, Masses) << 16) >> __builtin_convertvector(right, Masses);
}

inline float greatest(Floats lanes) {
  float m = lanes[0];
  for (size_t i = 1; i < kLanes; ++i) m = most(m, lanes[i]);
  return m;
}

template <typename Lanes>
inline int64_t sum(Lanes lanes) {
  int64_t total = 0;
  for (size_t i = 0; i < kLanes; ++i) total += lanes[i];
  return total;
}

float maxima(const float* x, size_t n, float* blocks) {
  Integers invalid{};
  float m = -kInfinity;
  for (size_t begin = 0; begin < n; begin += kBlock) {
    Floats top = fill(-kInfinity);
    for_lanes(x + begin, least(kBlock, n - begin), [&](Floats lanes, size_t) {
      invalid |= ~(lanes < kInfinity);  // NaN and +inf
      top = top > lanes ? top : lanes;
    });
    *blocks = greatest(top);
    m = most(m, *blocks++);
  }
  return sum(invalid) == 0 ? m : kNaN;
}

int64_t masses(const float* x, size_t n, float m, float inverse_temperature, int64_t* blocks) {
  int64_t total = 0;
  for (size_t begin = 0; begin < n; begin += kBlock) {
    Masses block{};
    for_lanes(x + begin, least(kBlock, n - begin), [&](Floats lanes, size_t) {
      block += weight(distance(lanes, m, inverse_temperature));
    });
    *blocks = sum(block);
    total += *blocks++;
  }
  return total;
}

void weigh(const float* x, size_t n, float m, float inverse_temperature, float* d, int64_t* w) {
  for_lanes(x, n, [&](Floats lanes, size_t i) {
    const size_t count = least(kLanes, n - i);
    const Floats below = distance(lanes, m, inverse_temperature);
    const Masses mass = weight(below);
    std::memcpy(d + i, &below, count * sizeof(float));
    std::memcpy(w + i, &mass, count * sizeof(int64_t));
  });
}

size_t count_finite(const float* x, size_t n) {
  Integers below{};
  for_lanes(x, n, [&](Floats lanes, size_t) { below -= lanes > -kInfinity; });
  return static_cast<size_t>(sum(below));
}

size_t collect(const float* x, size_t n, const float* blocks, float threshold, int32_t* ids) {
  size_t count = 0;
  for (size_t begin = 0; begin < n; begin += kBlock) {
    if (*blocks++ < threshold) continue;
    const size_t end = least(n, begin + kBlock);
    for (size_t i = begin; i < end; ++i) {
      ids[count] = static_cast<int32_t>(i);
      count += x[i] >= threshold;
    }
  }
  return count;
}

}  // namespace

extern const Passes kPasses{maxima, masses, weigh, count_finite, collect};

}  // namespace ALEA_NAMESPACE(ALEA_ISA)
}  // namespace alea
