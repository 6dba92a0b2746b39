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
#include "lanes.h"

namespace alea {
namespace ALEA_NAMESPACE(ALEA_ISA) {
namespace {

using Masses [[gnu::vector_size(4 * kLanes)]] = int64_t;  // of half of the lanes

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

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

// Writes the first `count` lanes, or all if there are fewer.
template <typename Lanes, typename Number>
inline void store(const Lanes& lanes, size_t count, Number* out) {
  static_assert(sizeof lanes == kLanes * sizeof(Number));
  if (count >= kLanes) {
    std::memcpy(out, &lanes, sizeof lanes);
  } else {
    std::memcpy(out, &lanes, count * sizeof(Number));
  }
}

// The last lanes of a row, padded; all are padding if count is 0.
template <typename Logits>
inline Floats load_last(const void* x, size_t i, size_t count, float padding = -kInfinity) {
  typename Logits::Lanes lanes{};
  constexpr size_t size = sizeof lanes / kLanes;
  std::memcpy(&lanes, Logits::memory(x) + i * size, least(count, kLanes) * size);
  Floats logits = Logits::widen(lanes);
  for (size_t lane = 0; lane < kLanes; ++lane) {
    if (lane >= count) {
      logits[lane] = padding;
    } else if (!Logits::allows(x, i + lane)) {
      logits[lane] = -kInfinity;
    }
  }
  return logits;
}

template <typename Logits>
inline float load_one(const void* x, size_t i) {
  return load_last<Logits>(x, i, 1)[0];
}

// Calls visit(logits, i) for the logits from begin to end, kLanes at a time. By default those beyond the end are -inf,
// which has no mass and is never a maximum.
template <typename Logits, typename Visit>
inline void for_lanes(const void* x, size_t begin, size_t end, Visit visit, float padding = -kInfinity) {
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
  if (i < end) visit(load_last<Logits>(x, i, end - i, padding), i);
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

inline int64_t sum(Masses lanes) {
  return folded<int64_t, kLanes / 2>(lanes, [](auto a, auto b) { return a + b; });
}

inline bool any(Integers lanes) {
  return folded<int32_t, kLanes>(lanes, [](auto a, auto b) { return a | b; }) != 0;
}

// a b + c, rounded once. Without the instruction it goes through float64, which gives the same weights
// (docs/definition.md step 3).
inline Floats fma(Floats a, Floats b, Floats c) {
#if defined(ALEA_HAS_FMA)
  return fused(a, b, c);
#else
  using Doubles [[gnu::vector_size(8 * kLanes)]] = double;
  const auto exact = [](Floats lanes) { return __builtin_convertvector(lanes, Doubles); };
  return __builtin_convertvector(exact(a) * exact(b) + exact(c), Floats);
#endif
}

// Plus or minus 0 as long as every x is finite, then NaN.
inline Floats add_zero_times(Floats x, Floats sum) {
#if defined(ALEA_HAS_FMA)
  return fma(x, Floats{}, sum);
#else
  return (Floats)((Integers)(x * Floats{}) | (Integers)sum);
#endif
}

// Vectors that are computed side by side. In a long computation each step waits for the one before it; the same step of
// the other vectors fills the time.
struct Group {
  static constexpr size_t kSize = 8;
  Floats of[kSize];

  template <typename Step>
  Group each(Step step) const {
    Group results;
#pragma GCC unroll 8
    for (size_t i = 0; i < kSize; ++i) results.of[i] = step(of[i]);
    return results;
  }

  template <typename Step>
  Group each(const Group& other, Step step) const {
    Group results;
#pragma GCC unroll 8
    for (size_t i = 0; i < kSize; ++i) results.of[i] = step(of[i], other.of[i]);
    return results;
  }
};

// Calls visit(group, i) for the logits of a block from begin to end; those beyond the end are -inf.
template <typename Logits, typename Visit>
inline void for_groups(const void* x, size_t begin, size_t end, Visit visit) {
  constexpr size_t kStep = Group::kSize * kLanes;
  Group group;
  if (end - begin == kBlock) {
    for (size_t i = begin; i < begin + kBlock; i += kStep) {
#pragma GCC unroll 8
      for (size_t j = 0; j < Group::kSize; ++j) group.of[j] = load<Logits>(x, i + j * kLanes);
      visit(group, i);
    }
    return;
  }
  for (size_t i = begin; i < end; i += kStep) {
    for (size_t j = 0, at = i; j < Group::kSize; ++j, at += kLanes) {
      group.of[j] = load_last<Logits>(x, at, at < end ? end - at : 0);
    }
    visit(group, i);
  }
}

inline Group distance(const Group& x, float m, float inverse_temperature, float lowest) {
  return x.each([&](Floats x) { return x - m; })
      .each([&](Floats d) { return d * inverse_temperature; })
      .each([&](Floats d) { return greater(d, fill(lowest)); });
}

// From here down every weight is 0, so distances are clamped here.
constexpr float kWeightless = -32.0f;

// scale e^d, for a scale that is a power of two; d from 0 down to kWeightless.
inline Group exponential(const Group& d, float scale) {
  constexpr float kRound = 0x1.8p+23f;
  // 1. d = j ln 2 + s
  const Group shifted = d.each([](Floats d) { return fma(d, fill(0x1.715476p+0f), fill(kRound)); });
  const Group j = shifted.each([](Floats shifted) { return shifted - kRound; });
  const Group s = j.each(d, [](Floats j, Floats d) {
                     return fma(j, fill(-0x1.62e400p-1f), d);
                   }).each(j, [](Floats s, Floats j) { return fma(j, fill(-0x1.7f7d1cp-20f), s); });
  // 2. scale e^s: scaling each constant changes no rounding
  Group e = s.each([&](Floats s) { return fma(fill(0x1.0fa834p-7f * scale), s, fill(0x1.573a54p-5f * scale)); });
  for (const float c : {0x1.555a6ap-3f, 0x1.fffdc6p-2f, 0x1.fffff6p-1f, 1.0f}) {
    e = e.each(s, [&](Floats e, Floats s) { return fma(e, s, fill(c * scale)); });
  }
  // 3. times 2^j through the exponent: the shift keeps only the last bits of `shifted`, which hold j
  return e.each(shifted, [](Floats e, Floats shifted) { return (Floats)((Integers)e + ((Integers)shifted << 23)); });
}

// Masses as two pieces of 32 bits, high 2^20 + low; those of a block can be added in them.
struct Pieces {
  Integers high, low;

  void add(Pieces other) {
    high += other.high;
    low += other.low;
  }
};

// The masses where the mask is set, elsewhere 0.
inline Pieces only(Integers mask, Pieces mass) { return {mass.high & mask, mass.low & mask}; }

// The sum of at most kBlock masses, whose pieces stay within 2^27.
inline int64_t sum(Pieces mass) { return (sum(mass.high) << 20) + sum(mass.low); }

// The masses of a scaled exponential, 2^20 e^d, exactly: splitting a float at a whole number rounds nothing.
constexpr float kPieces = 0x1p+20f;
inline Pieces cut(Floats e) {
  const Integers high = __builtin_convertvector(e, Integers);
  const Floats rest = e - __builtin_convertvector(high, Floats);
  return {high, __builtin_convertvector(rest * 0x1p+20f, Integers)};
}

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

#if defined(__AVX2__) && !defined(__AVX512F__)
// For each set of 8 lanes, their numbers one after another.
struct SetLanes {
  uint8_t of[256][8] = {};

  constexpr SetLanes() {
    for (int bits = 0; bits < 256; ++bits) {
      for (int lane = 0, count = 0; lane < 8; ++lane) {
        if (bits >> lane & 1) of[bits][count++] = static_cast<uint8_t>(lane);
      }
    }
  }
  __m256i operator[](uint32_t bits) const { return _mm256_cvtepu8_epi32(_mm_loadu_si64(of[bits])); }
};
constexpr SetLanes kSetLanes;
#endif

// Writes the ids of the set lanes, where lane 0 is `first`; returns their number. May overwrite kLanes entries.
inline size_t append(uint32_t bits, int32_t first, int32_t* ids) {
#if defined(__AVX512F__)
  const __m512i all = _mm512_add_epi32(_mm512_set1_epi32(first),
                                       _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
  _mm512_storeu_si512(ids, _mm512_maskz_compress_epi32(static_cast<__mmask16>(bits), all));
#elif defined(__AVX2__)
  const __m256i set = _mm256_add_epi32(_mm256_set1_epi32(first), kSetLanes[bits]);
  std::memcpy(ids, &set, sizeof set);
#else
  for (uint32_t left = bits; left; left &= left - 1) *ids++ = first + __builtin_ctz(left);
#endif
  return static_cast<size_t>(__builtin_popcount(bits));
}

// Writes the set lanes. May overwrite kLanes entries.
inline void append(uint32_t bits, Floats lanes, float* x) {
#if defined(__AVX512F__)
  _mm512_storeu_ps(x, _mm512_maskz_compress_ps(static_cast<__mmask16>(bits), (__m512)lanes));
#elif defined(__AVX2__)
  _mm256_storeu_ps(x, _mm256_permutevar8x32_ps((__m256)lanes, kSetLanes[bits]));
#else
  for (; bits; bits &= bits - 1) *x++ = lanes[__builtin_ctz(bits)];
#endif
}

template <typename Logits>
bool has_nan(const void* x, size_t n) {
  Integers is_nan{};
  for (size_t begin = 0; begin < n; begin += kBlock) {
    const size_t end = least(n, begin + kBlock);
    if (end - begin == kBlock && Logits::allows_none(x, begin)) continue;
    for_lanes<Logits>(x, begin, end, [&](Floats lanes, size_t) { is_nan |= lanes != lanes; });
  }
  return any(is_nan);
}

template <typename Logits>
Extremes maxima(const void* x, size_t n, float* blocks) {
  const float last = load_one<Logits>(x, n - 1);  // as padding it changes no maximum
  Floats highest = fill(-kInfinity);
  Floats zeros{};
  for (size_t begin = 0; begin < n; begin += kBlock) {
    const size_t end = least(n, begin + kBlock);
    if (end - begin == kBlock && Logits::allows_none(x, begin)) {
      zeros += kNaN;
      *blocks++ = -kInfinity;
      continue;
    }
    Floats top = fill(-kInfinity), zero{};
    const auto visit = [&](Floats lanes, size_t) {
      top = greater(lanes, top);  // a NaN is passed over
      zero = add_zero_times(lanes, zero);
    };
    for_lanes<Logits>(x, begin, end, visit, last);
    highest = greater(top, highest);
    zeros += zero;
    *blocks++ = greatest(top);
  }
  if (!any(zeros != zeros)) return {greatest(highest), false};
  return {has_nan<Logits>(x, n) ? kNaN : greatest(highest), true};
}

// The mass of one block, if it fits 32 bits.
template <typename Logits>
inline int64_t light_mass(const void* x, size_t begin, size_t end, float m, float inverse_temperature) {
  Integers mass{};
  for_groups<Logits>(x, begin, end, [&](const Group& logits, size_t) {
    const Group e = exponential(distance(logits, m, inverse_temperature, kWeightless), 0x1p+40f);
    for (const Floats& lanes : e.of) mass += __builtin_convertvector(lanes, Integers);
  });
  return sum(mass);
}

template <typename Logits>
inline int64_t heavy_mass(const void* x, size_t begin, size_t end, float m, float inverse_temperature) {
  Pieces mass{};
  for_groups<Logits>(x, begin, end, [&](const Group& logits, size_t) {
    const Group e = exponential(distance(logits, m, inverse_temperature, kWeightless), kPieces);
    for (const Floats& lanes : e.of) mass.add(cut(lanes));
  });
  return sum(mass);
}

template <typename Logits>
inline int64_t block_mass(const void* x, size_t begin, size_t end, float m, float inverse_temperature, float top) {
  constexpr float kLight = -11.25f;  // from here down the mass of a block is below 2^31
  const float d = (top - m) * inverse_temperature;
  if (d <= kWeightless) return 0;
  if (d <= kLight) return light_mass<Logits>(x, begin, end, m, inverse_temperature);
  return heavy_mass<Logits>(x, begin, end, m, inverse_temperature);
}

template <typename Logits>
int64_t masses(const void* x, size_t n, float m, float inverse_temperature, const float* maxima, int64_t* blocks) {
  int64_t total = 0;
  for (size_t begin = 0; begin < n; begin += kBlock, ++blocks) {
    *blocks = block_mass<Logits>(x, begin, least(n, begin + kBlock), m, inverse_temperature, *maxima++);
    total += *blocks;
  }
  return total;
}

template <typename Logits>
Split split(const void* x, size_t n, float m, float inverse_temperature, const float* maxima, Limits limits,
            int64_t* blocks, int32_t* ids, float* between) {
  Split found{};
  for (size_t begin = 0; begin < n; begin += kBlock, ++blocks, ++maxima) {
    const size_t end = least(n, begin + kBlock);
    if (*maxima < limits.lowest) {
      *blocks = 0;
      found.total += block_mass<Logits>(x, begin, end, m, inverse_temperature, *maxima);
      continue;
    }
    Pieces all{}, above{};
    Integers count{};
    for_groups<Logits>(x, begin, end, [&](const Group& logits, size_t i) {
      const Group e = exponential(distance(logits, m, inverse_temperature, kWeightless), kPieces);
      for (size_t j = 0; j < Group::kSize; ++j, i += kLanes) {
        const Integers is_above = logits.of[j] > limits.highest;
        const Pieces mass = cut(e.of[j]);
        all.add(mass);
        above.add(only(is_above, mass));
        count -= is_above;
        const uint32_t bits = bits_of((logits.of[j] >= limits.lowest) & ~is_above);
        append(bits, logits.of[j], between + found.between);
        found.between += append(bits, static_cast<int32_t>(i), ids + found.between);
      }
    });
    *blocks = sum(above);
    found.total += sum(all);
    found.mass += *blocks;
    found.above += static_cast<size_t>(sum(count));
  }
  return found;
}

// The masses w[kLanes] where the mask is set, elsewhere 0; the two halves of the lanes added.
inline Masses only(Integers mask, const int64_t* w) {
#if defined(__AVX512F__)
  const uint32_t bits = bits_of(mask);
  return (Masses)_mm512_maskz_loadu_epi64(static_cast<__mmask8>(bits), w) +
         (Masses)_mm512_maskz_loadu_epi64(static_cast<__mmask8>(bits >> 8), w + 8);
#else
  using Half [[gnu::vector_size(2 * kLanes)]] = int32_t;
  Half masks[2];
  Masses first, last;
  std::memcpy(masks, &mask, sizeof masks);
  std::memcpy(&first, w, sizeof first);
  std::memcpy(&last, w + kLanes / 2, sizeof last);
  return (first & __builtin_convertvector(masks[0], Masses)) + (last & __builtin_convertvector(masks[1], Masses));
#endif
}

Above above(const float* x, const int64_t* w, size_t n, float limit) {
  Masses mass{};
  Integers count{};
  Floats least_above = fill(kInfinity), next = fill(-kInfinity);
  const auto visit = [&](Floats lanes, const int64_t* w) {
    const Integers is_above = lanes > limit;
    mass += only(is_above, w);
    count -= is_above;
    least_above = -greater(is_above ? -lanes : fill(-kInfinity), -least_above);
    next = greater(is_above ? fill(-kInfinity) : lanes, next);
  };
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) visit(load<Float32>(x, i), w + i);
  if (i < n) {
    int64_t last[kLanes]{};
    std::memcpy(last, w + i, (n - i) * sizeof *w);
    visit(load_last<Float32>(x, i, n - i), last);
  }
  return {sum(mass), static_cast<size_t>(sum(count)), -greatest(-least_above), greatest(next)};
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
  for_lanes<Logits>(x, 0, n, [&](Floats lanes, size_t i) { store(lanes, n - i, out + i); });
}

template <typename Logits>
void gather(const void* x, const int32_t* ids, size_t count, float* out) {
  if constexpr (std::is_same_v<Logits, Float32>) {
    for (size_t i = 0; i < count; ++i) out[i] = static_cast<const float*>(x)[ids[i]];
  } else {
    for (size_t i = 0; i < count; ++i) out[i] = load_one<Logits>(x, static_cast<size_t>(ids[i]));
  }
}

void weigh(const float* x, size_t n, float m, float inverse_temperature, float* d, int64_t* w) {
  using Masses [[gnu::vector_size(8 * kLanes)]] = int64_t;
  const auto visit = [&](const Group& logits, size_t i) {
    const Group distances = distance(logits, m, inverse_temperature, -60.0f);
    const Group e = exponential(distances.each([](Floats d) { return greater(d, fill(kWeightless)); }), kPieces);
    for (size_t j = 0; j < Group::kSize && i < n; ++j, i += kLanes) {
      const Pieces pieces = cut(e.of[j]);
      const Masses mass =
          (__builtin_convertvector(pieces.high, Masses) << 20) + __builtin_convertvector(pieces.low, Masses);
      store(distances.of[j], n - i, d + i);
      store(mass, n - i, w + i);
    }
  };
  for (size_t begin = 0; begin < n; begin += kBlock) for_groups<Float32>(x, begin, least(n, begin + kBlock), visit);
}

template <typename Logits>
constexpr Passes passes_over() {
  return {maxima<Logits>,  masses<Logits>, split<Logits>,  above, count_finite<Logits>,
          collect<Logits>, widen<Logits>,  gather<Logits>, weigh, sizeof(typename Logits::Lanes) / kLanes};
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
