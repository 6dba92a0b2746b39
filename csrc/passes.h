// The passes over a whole row of logits: the only code whose time grows with the vocabulary.
//
// Written once with vectors of ALEA_LANES floats (a GCC and Clang extension). Each passes_*.cpp compiles it for one
// instruction set, and isa.h chooses among them at run time. Every lane computes what fixed_point.h computes.
//
// This file calls no function of the standard library but memcpy: the linker might keep a copy that was compiled here
// for AVX-512, and use it everywhere.
#include <cstring>
#include <limits>
#include <type_traits>

#include "isa.h"

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define ALEA_CONCAT(a, b) a##b
#define ALEA_NAMESPACE(isa) ALEA_CONCAT(passes_, isa)

namespace alea {
namespace ALEA_NAMESPACE(ALEA_ISA) {
namespace {

constexpr size_t kLanes = ALEA_LANES;
using Floats [[gnu::vector_size(4 * kLanes)]] = float;
using Integers [[gnu::vector_size(4 * kLanes)]] = int32_t;
using Masses [[gnu::vector_size(8 * kLanes)]] = int64_t;
using Halves [[gnu::vector_size(2 * kLanes)]] = uint16_t;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

inline size_t least(size_t a, size_t b) { return a < b ? a : b; }

inline Floats fill(float value) { return Floats{} + value; }
inline Integers fill(int32_t value) { return Integers{} + value; }

// a > b ? a : b as one instruction; compilers do not recognise it in the comparison.
inline Floats greater(Floats a, Floats b) {
#if defined(__AVX512F__)
  return (Floats)_mm512_maskz_max_ps(0xFFFF, (__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Floats)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
  return (Floats)_mm_max_ps((__m128)a, (__m128)b);
#else
  return a > b ? a : b;
#endif
}

// Where the logits lie, unless a mask goes with them.
struct Plain {
  static constexpr bool kMasked = false;
  static const char* memory(const void* x) { return static_cast<const char*>(x); }
  static bool allows(const void*, size_t) { return true; }
  static bool allows_none(const void*, size_t) { return false; }
  static Floats masked(Floats lanes, const void*, size_t) { return lanes; }
};

// The types of logits in memory, and their conversion to float32.
struct Float32 : Plain {
  using Lanes = Floats;
  static Floats widen(Lanes lanes) { return lanes; }
};

struct Bfloat16 : Plain {
  using Lanes = Halves;
  static Floats widen(Lanes lanes) { return (Floats)(__builtin_convertvector(lanes, Integers) << 16); }
};

struct Float16 : Plain {
  using Lanes = Halves;
  static Floats widen(Lanes lanes) {
    const Integers bits = __builtin_convertvector(lanes, Integers);
    // Shifts exponent and fraction into place; 2^112 corrects the exponent's bias. Exact for subnormals too.
    const Floats magnitude = (Floats)((bits & 0x7FFF) << 13) * 0x1p+112f;
    const Integers special = (magnitude >= 65536.0f) & 0x7F800000;  // infinity and NaN
    return (Floats)((Integers)magnitude | special | (bits & 0x8000) << 16);
  }
};

// Any of these types with a mask: x points at a `Masked`.
template <typename Logits>
struct MaskedLogits : Logits {
  using Unmasked = Logits;
  static constexpr bool kMasked = true;
  static const Masked& both(const void* x) { return *static_cast<const Masked*>(x); }
  static const char* memory(const void* x) { return static_cast<const char*>(both(x).x); }
  static bool allows(const void* x, size_t i) { return both(x).words[i / 32] >> i % 32 & 1; }

  // Whether a block is allowed as a whole, or nothing of it: so are most, and they take less time.
  static bool allows_all(const void* x, size_t begin) {
    const uint32_t* const words = both(x).words + begin / 32;
    return (words[0] & words[1] & words[2] & words[3]) == ~uint32_t{0};
  }
  static bool allows_none(const void* x, size_t begin) {
    const uint32_t* const words = both(x).words + begin / 32;
    return (words[0] | words[1] | words[2] | words[3]) == 0;
  }

  // For kLanes logits from i on, a multiple of kLanes.
  static Floats masked(Floats lanes, const void* x, size_t i) {
#if defined(__AVX512F__)
    uint16_t bits;
    std::memcpy(&bits, reinterpret_cast<const char*>(both(x).words) + i / 8, sizeof bits);
    return (Floats)_mm512_mask_blend_ps(bits, (__m512)fill(-kInfinity), (__m512)lanes);
#else
    Integers bit_of_lane{};
    for (size_t lane = 0; lane < kLanes; ++lane) bit_of_lane[lane] = int32_t{1} << lane;
    const auto bits = static_cast<int32_t>(both(x).words[i / 32] >> i % 32);
    return (bit_of_lane & bits) != 0 ? lanes : fill(-kInfinity);
#endif
  }
};

template <typename Logits>
inline Floats load(const void* x, size_t i) {
  typename Logits::Lanes lanes;
  std::memcpy(&lanes, Logits::memory(x) + i * (sizeof lanes / kLanes), sizeof lanes);
  return Logits::masked(Logits::widen(lanes), x, i);
}

// The last lanes of a row, padded with -inf, which has no mass and is never a maximum.
template <typename Logits>
inline Floats load_last(const void* x, size_t i, size_t count) {
  typename Logits::Lanes lanes{};
  constexpr size_t size = sizeof lanes / kLanes;
  std::memcpy(&lanes, Logits::memory(x) + i * size, least(count, kLanes) * size);
  Floats logits = Logits::widen(lanes);
  for (size_t lane = 0; lane < kLanes; ++lane) {
    if (lane >= count || !Logits::allows(x, i + lane)) logits[lane] = -kInfinity;
  }
  return logits;
}

// Calls visit(logits, i) for the logits from begin to end, kLanes at a time.
template <typename Logits, typename Visit>
inline void for_lanes(const void* x, size_t begin, size_t end, Visit visit) {
  size_t i = begin;
  if (end - begin == kBlock) {
    if constexpr (Logits::kMasked) {
      if (Logits::allows_all(x, begin))
        return for_lanes<typename Logits::Unmasked>(Logits::memory(x), begin, end, visit);
    }
#pragma GCC unroll 32
    for (size_t j = 0; j < kBlock; j += kLanes) visit(load<Logits>(x, begin + j), begin + j);
    return;
  }
  for (; i + kLanes <= end; i += kLanes) visit(load<Logits>(x, i), i);
  if (i < end) visit(load_last<Logits>(x, i, end - i), i);
}

// Folds the lanes in half until one is left.
template <typename Number, size_t lanes, typename Vector, typename Fold>
inline Number folded(Vector vector, Fold fold) {
  if constexpr (lanes == 1) {
    return vector[0];
  } else if constexpr (lanes == 2) {
    return fold(vector[0], vector[1]);
  } else {
    using Half [[gnu::vector_size(sizeof(Number) * lanes / 2)]] = Number;
    Half halves[2];
    std::memcpy(halves, &vector, sizeof halves);
    return folded<Number, lanes / 2>(fold(halves[0], halves[1]), fold);
  }
}

inline float greatest(Floats lanes) {
  return folded<float, kLanes>(lanes, [](auto a, auto b) { return a > b ? a : b; });
}

inline int64_t sum(Integers lanes) {
  return folded<int32_t, kLanes>(lanes, [](auto a, auto b) { return a + b; });
}

inline bool any(Integers lanes) {
  return folded<int32_t, kLanes>(lanes, [](auto a, auto b) { return a | b; }) != 0;
}

inline Floats distance(Floats x, float m, float inverse_temperature, float lowest) {
  return greater((x - m) * inverse_temperature, fill(lowest));
}

// a b + c, rounded once. Without the instruction it goes through float64, which gives the same weights
// (docs/definition.md step 3).
inline Floats fma(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
  return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  using Doubles [[gnu::vector_size(8 * kLanes)]] = double;
  const auto exact = [](Floats lanes) { return __builtin_convertvector(lanes, Doubles); };
  return __builtin_convertvector(exact(a) * exact(b) + exact(c), Floats);
#endif
}

// From here down every weight is 0, so distances are clamped here.
constexpr float kWeightless = -32.0f;

// scale e^d, for a scale that is a power of two; d from 0 down to kWeightless.
inline Floats exponential(Floats d, float scale) {
  constexpr float kRound = 0x1.8p+23f;
  // 1. d = j ln 2 + s
  const Floats shifted = fma(d, fill(0x1.715476p+0f), fill(kRound));
  const Floats j = shifted - kRound;
  const Floats s = fma(-j, fill(0x1.7f7d1cp-20f), fma(-j, fill(0x1.62e400p-1f), d));
  // 2. scale e^s: scaling each constant changes no rounding
  Floats e = fill(0x1.0fa834p-7f * scale);
  e = fma(e, s, fill(0x1.573a54p-5f * scale));
  e = fma(e, s, fill(0x1.555a6ap-3f * scale));
  e = fma(e, s, fill(0x1.fffdc6p-2f * scale));
  e = fma(e, s, fill(0x1.fffff6p-1f * scale));
  e = fma(e, s, fill(scale));
  // 3. times 2^j through the exponent: the shift keeps only the last bits of `shifted`, which hold j
  return (Floats)((Integers)e + ((Integers)shifted << 23));
}

// A mass as two pieces of 32 bits, high 2^20 + low; the masses of a block can be added in them.
struct Pieces {
  Integers high, low;

  void add(Pieces other) {
    high += other.high;
    low += other.low;
  }
};

// W(d), exactly: splitting a float at a whole number rounds nothing.
inline Pieces weight(Floats d) {
  const Floats x = exponential(d, 0x1p+20f);
  const Integers high = __builtin_convertvector(x, Integers);
  const Floats rest = x - __builtin_convertvector(high, Floats);
  return {high, __builtin_convertvector(rest * 0x1p+20f, Integers)};
}

// The sum of at most kBlock masses, whose pieces stay within 2^27.
inline int64_t sum(Pieces mass) { return (sum(mass.high) << 20) + sum(mass.low); }

// One bit per lane that is set.
inline uint32_t bits_of(Integers lanes) {
#if defined(__AVX512DQ__)
  return _mm512_movepi32_mask((__m512i)lanes);
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_ps((__m256)lanes));
#elif defined(__SSE2__)
  return static_cast<uint32_t>(_mm_movemask_ps((__m128)lanes));
#else
  uint32_t bits = 0;
  for (size_t i = 0; i < kLanes; ++i) bits |= (lanes[i] & 1u) << i;
  return bits;
#endif
}

// Writes the ids of the set lanes, where lane 0 is `first`; returns their number. May overwrite kLanes entries.
inline size_t append(uint32_t bits, int32_t first, int32_t* ids) {
#if defined(__AVX512F__)
  const __m512i all = _mm512_add_epi32(_mm512_set1_epi32(first),
                                       _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
  _mm512_storeu_si512(ids, _mm512_maskz_compress_epi32(static_cast<__mmask16>(bits), all));
  return static_cast<size_t>(__builtin_popcount(bits));
#else
  size_t count = 0;
  for (; bits; bits &= bits - 1) ids[count++] = first + __builtin_ctz(bits);
  return count;
#endif
}

template <typename Logits>
Extremes maxima(const void* x, size_t n, float* blocks) {
  Integers invalid{};
  Integers has_gap{};
  Floats highest = fill(-kInfinity);
  for (size_t begin = 0; begin < n; begin += kBlock) {
    Floats top = fill(-kInfinity);
    const size_t end = least(n, begin + kBlock);
    if (end - begin == kBlock && Logits::allows_none(x, begin)) {
      has_gap = ~Integers{};
      *blocks++ = -kInfinity;
      continue;
    }
    for_lanes<Logits>(x, begin, end, [&](Floats lanes, size_t i) {
      invalid |= ~(lanes < kInfinity);  // NaN and +inf
      top = greater(lanes, top);
      if (i + kLanes > end) return;  // padded
      has_gap |= lanes == -kInfinity;
    });
    highest = greater(top, highest);
    *blocks++ = greatest(top);
  }
  bool has_gaps = any(has_gap);
  for (size_t i = n - n % kLanes; i < n; ++i) has_gaps |= load_last<Logits>(x, i, 1)[0] == -kInfinity;
  return {any(invalid) ? kNaN : greatest(highest), has_gaps};
}

// The mass of one block, if it fits 32 bits.
template <typename Logits>
inline int64_t light_mass(const void* x, size_t begin, size_t end, float m, float inverse_temperature) {
  Integers mass{};
  for_lanes<Logits>(x, begin, end, [&](Floats lanes, size_t) {
    const Floats d = distance(lanes, m, inverse_temperature, kWeightless);
    mass += __builtin_convertvector(exponential(d, 0x1p+40f), Integers);
  });
  return sum(mass);
}

template <typename Logits>
inline int64_t heavy_mass(const void* x, size_t begin, size_t end, float m, float inverse_temperature) {
  Pieces mass{};
  for_lanes<Logits>(x, begin, end, [&](Floats lanes, size_t) {
    mass.add(weight(distance(lanes, m, inverse_temperature, kWeightless)));
  });
  return sum(mass);
}

template <typename Logits>
int64_t masses(const void* x, size_t n, float m, float inverse_temperature, const float* maxima, int64_t* blocks) {
  constexpr float kLight = -11.25f;  // from here down the mass of a block is below 2^31
  int64_t total = 0;
  for (size_t begin = 0; begin < n; begin += kBlock, ++blocks, ++maxima) {
    const float top = (*maxima - m) * inverse_temperature;
    const size_t end = least(n, begin + kBlock);
    if (top <= kWeightless) {
      *blocks = 0;
    } else if (top <= kLight) {
      *blocks = light_mass<Logits>(x, begin, end, m, inverse_temperature);
    } else {
      *blocks = heavy_mass<Logits>(x, begin, end, m, inverse_temperature);
    }
    total += *blocks;
  }
  return total;
}

template <typename Logits>
Above masses_above(const void* x, size_t n, float m, float inverse_temperature, const float* maxima, float limit,
                   int64_t* blocks) {
  Above above{0, 0};
  for (size_t begin = 0; begin < n; begin += kBlock, ++blocks) {
    Pieces mass{};
    Integers count{};
    if (*maxima++ > limit) {
      for_lanes<Logits>(x, begin, least(n, begin + kBlock), [&](Floats lanes, size_t) {
        const Integers is_above = lanes > limit;
        const Pieces w = weight(distance(lanes, m, inverse_temperature, kWeightless));
        mass.add({w.high & is_above, w.low & is_above});
        count -= is_above;
      });
    }
    *blocks = sum(mass);
    above.mass += *blocks;
    above.count += static_cast<size_t>(sum(count));
  }
  return above;
}

template <typename Logits>
size_t count_finite(const void* x, size_t n) {
  Integers finite{};
  for_lanes<Logits>(x, 0, n, [&](Floats lanes, size_t) { finite -= lanes > -kInfinity; });
  return static_cast<size_t>(sum(finite));
}

template <typename Logits>
size_t collect(const void* x, size_t n, const float* maxima, float lowest, float highest, int32_t* ids) {
  size_t count = 0;
  for (size_t begin = 0; begin < n; begin += kBlock) {
    if (*maxima++ < lowest) continue;
    for_lanes<Logits>(x, begin, least(n, begin + kBlock), [&](Floats lanes, size_t i) {
      const uint32_t bits = bits_of((lanes >= lowest) & (lanes <= highest));
      if (bits) count += append(bits, static_cast<int32_t>(i), ids + count);
    });
  }
  return count;
}

template <typename Logits>
void widen(const void* x, size_t n, float* out) {
  for_lanes<Logits>(
      x, 0, n, [&](Floats lanes, size_t i) { std::memcpy(out + i, &lanes, least(kLanes, n - i) * sizeof(float)); });
}

template <typename Logits>
void gather(const void* x, const int32_t* ids, size_t count, float* out) {
  if constexpr (std::is_same_v<Logits, Float32>) {
    for (size_t i = 0; i < count; ++i) out[i] = static_cast<const float*>(x)[ids[i]];
  } else {
    for (size_t i = 0; i < count; ++i) out[i] = load_last<Logits>(x, static_cast<size_t>(ids[i]), 1)[0];
  }
}

void weigh(const float* x, size_t n, float m, float inverse_temperature, float* d, int64_t* w) {
  for_lanes<Float32>(x, 0, n, [&](Floats lanes, size_t i) {
    const size_t count = least(kLanes, n - i);
    const Floats below = distance(lanes, m, inverse_temperature, -60.0f);
    const Pieces pieces = weight(greater(below, fill(kWeightless)));
    const Masses mass =
        (__builtin_convertvector(pieces.high, Masses) << 20) + __builtin_convertvector(pieces.low, Masses);
    std::memcpy(d + i, &below, count * sizeof(float));
    std::memcpy(w + i, &mass, count * sizeof(int64_t));
  });
}

template <typename Logits>
constexpr Passes passes_over() {
  return {maxima<Logits>,       masses<Logits>,  masses_above<Logits>,
          count_finite<Logits>, collect<Logits>, widen<Logits>,
          gather<Logits>,       weigh,           sizeof(typename Logits::Lanes) / kLanes};
}

}  // namespace

extern const Passes kPasses[2 * kTypes] = {
    passes_over<Float32>(),
    passes_over<Float16>(),
    passes_over<Bfloat16>(),
    passes_over<MaskedLogits<Float32>>(),
    passes_over<MaskedLogits<Float16>>(),
    passes_over<MaskedLogits<Bfloat16>>(),
};

}  // namespace ALEA_NAMESPACE(ALEA_ISA)
}  // namespace alea
