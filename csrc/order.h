// An order of tokens as 32-bit keys, least first, equal keys by position; and how far into it a filter reaches.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <tuple>

#include "buffer.h"
#include "kept.h"

namespace alea {

using Keys = Buffer<uint32_t>;

// The first tokens of an order: every key below `key`, and the first `ties` of those equal to it.
struct Prefix {
  uint32_t key;
  size_t ties;
  bool operator<(const Prefix& longer) const { return std::tie(key, ties) < std::tie(longer.key, longer.ties); }
};

// The key of a logit: x descending, -0 equal to 0.
inline uint32_t key_of(float x) {
  uint32_t bits;
  x += 0.0f;
  std::memcpy(&bits, &x, sizeof bits);
  return bits >> 31 ? bits : 0x7FFFFFFF - bits;
}

inline Keys keys_of(const Buffer<float>& x) {
  Keys keys(x.size());
  for (size_t i = 0; i < x.size(); ++i) keys[i] = key_of(x[i]);
  return keys;
}

constexpr size_t kFew = 256;

// The shortest prefix whose mass reaches the target, by sorting; for few tokens.
template <typename MassOf>
Prefix prefix_of_few(const Keys& keys, int64_t target, MassOf mass_of) {
  uint64_t order[kFew];  // key, then position
  for (size_t i = 0; i < keys.size(); ++i) order[i] = static_cast<uint64_t>(keys[i]) << 32 | i;
  std::sort(order, order + keys.size());
  Prefix prefix{0, 0};
  int64_t mass = 0;
  for (size_t i = 0; i < keys.size() && mass < target; ++i) {
    const auto key = static_cast<uint32_t>(order[i] >> 32);
    prefix = {key, key == prefix.key ? prefix.ties + 1 : 1};
    mass += mass_of(static_cast<int32_t>(order[i] & 0xFFFFFFFF));
  }
  return prefix;
}

// Whether the keys at some positions differ from the digit at `shift` on; the digits above agree.
inline bool differ(const Keys& keys, const Buffer<int32_t>& positions, int shift) {
  const uint32_t one = keys[static_cast<size_t>(positions[0])];
  uint32_t difference = 0;
  for (const int32_t i : positions) difference |= keys[static_cast<size_t>(i)] ^ one;
  return difference >> shift != 0;
}

// The shortest prefix whose mass reaches the target, 1 <= target <= all of it; mass_of(position) is a token's.
// Digit by digit of the key, by a histogram of mass: linear time, also for equal keys.
template <typename MassOf>
Prefix prefix_reaching(const Keys& keys, int64_t target, MassOf mass_of) {
  if (keys.size() <= kFew) return prefix_of_few(keys, target, mass_of);
  Prefix prefix{0, 0};
  int64_t mass = 0;  // of all that come before those whose keys agree with the digits found
  Buffer<int32_t> alive;
  alive.resize(keys.size());  // their positions
  for (size_t i = 0; i < alive.size(); ++i) alive[i] = static_cast<int32_t>(i);
  for (const int shift : {21, 10, 0}) {
    constexpr uint32_t kDigits = 2048;
    const auto digit = [&](int32_t i) { return keys[static_cast<size_t>(i)] >> shift & (kDigits - 1); };
    if (!differ(keys, alive, shift)) {
      prefix.key |= digit(alive[0]) << shift;
      continue;
    }
    int64_t histogram[kDigits] = {};
    for (const int32_t i : alive) histogram[digit(i)] += mass_of(i);
    uint32_t found = 0;
    while (found < kDigits - 1 && mass + histogram[found] < target) mass += histogram[found++];
    prefix.key |= found << shift;
    size_t count = 0;
    for (const int32_t i : alive) {
      alive[count] = i;
      count += digit(i) == found;
    }
    alive.resize(count);
    if (count == 0) return prefix;  // another thread wrote the masses meanwhile
  }
  while (prefix.ties < alive.size() && mass < target) mass += mass_of(alive[prefix.ties++]);
  return prefix;
}

// The first n tokens, or all where there are fewer.
inline Prefix first(const Keys& keys, size_t n) {
  return prefix_reaching(keys, static_cast<int64_t>(n < keys.size() ? n : keys.size()), [](int32_t) { return 1; });
}

// Adds a prefix to a mask.
inline void keep_prefix(Mask& mask, const Keys& keys, Prefix prefix) {
  for (size_t i = 0; i < keys.size(); ++i) {
    if (keys[i] < prefix.key) mask[i] = 1;
    if (keys[i] == prefix.key && prefix.ties > 0) {
      mask[i] = 1;
      --prefix.ties;
    }
  }
}

}  // namespace alea
