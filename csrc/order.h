// Finding a prefix of an order without sorting all of it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

namespace alea {

using Order = std::vector<int32_t>;  // indices of kept tokens

inline Order indices(size_t count) {
  Order order(count);
  std::iota(order.begin(), order.end(), 0);
  return order;
}

// Moves the first n in the order to the front, in any order among themselves. `before` is a strict total order.
template <typename Before>
void bring_forward(Order& order, size_t n, Before before) {
  if (n < order.size()) std::nth_element(order.begin(), order.begin() + n, order.end(), before);
}

// The size of the shortest prefix whose mass reaches the target; the prefix then stands in front.
// Halves the interval that holds the crossing: linear time on average (weighted quickselect).
template <typename Before>
size_t prefix_reaching(Order& order, const std::vector<int64_t>& w, int64_t target, Before before) {
  size_t low = 0, high = order.size();  // the crossing index lies in [low, high)
  int64_t mass = 0;                     // of all before low
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    std::nth_element(order.begin() + low, order.begin() + middle, order.begin() + high, before);
    int64_t half = 0;
    for (size_t i = low; i < middle; ++i) half += w[order[i]];
    if (mass + half >= target) {
      high = middle;
    } else {
      mass += half;
      low = middle;
    }
  }
  return low + 1;
}

}  // namespace alea
