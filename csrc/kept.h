// The tokens that are left of a row, in id order, and what a filter's mask does to them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "buffer.h"

namespace alea {

using Mask = Buffer<char>;  // one flag a kept token

struct Kept {
  Buffer<int32_t> ids;  // [K]
  Buffer<float> x;      // [K], logits
  Buffer<float> d;      // [K], (x - max) / T
  Buffer<int64_t> w;    // [K], mass
  int64_t total = 0;         // mass of all, also of tokens passed over because the next filter can't keep them

  size_t size() const { return ids.size(); }

  // Always so for a valid row; not where the logits changed between two passes over them.
  bool has_mass() const { return size() > 0 && total > 0; }

  void resize(size_t count) {
    ids.resize(count);
    x.resize(count);
    d.resize(count);
    w.resize(count);
  }

  void sum_up() {
    total = 0;
    for (const int64_t mass : w) total += mass;
  }

  void where(const Mask& mask) {
    size_t count = 0;
    for (size_t i = 0; i < size(); ++i) {
      ids[count] = ids[i];
      x[count] = x[i];
      d[count] = d[i];
      w[count] = w[i];
      count += mask[i] != 0;
    }
    resize(count);
    sum_up();
  }
};

}  // namespace alea
