// Rows spread over threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

#include "rounding.h"
#include "sampler.h"

namespace alea {

constexpr size_t kWorthAThread = size_t{1} << 17;  // logits: some 30 microseconds of work, what starting one costs

// visit(row, workspace) for each row, each by one of up to `threads` threads.
template <typename Visit>
void for_rows(size_t rows, size_t vocabulary, size_t threads, Visit visit) {
  std::atomic<size_t> next{0};
  const auto work = [&](Workspace& workspace) {
    const DefaultRounding rounding;
    for (size_t row = next++; row < rows; row = next++) visit(row, workspace);
  };
  threads = std::min({threads, rows, 1 + rows * vocabulary / (2 * kWorthAThread)});
  std::vector<std::thread> others;
  for (size_t i = 1; i < threads; ++i) {
    others.emplace_back([&work] {
      Workspace workspace;
      work(workspace);
    });
  }
  thread_local Workspace workspace;  // the caller's, kept from call to call
  work(workspace);
  for (std::thread& other : others) other.join();
}

}  // namespace alea
