// Draws from rows of every kind with every mix of filters, and compares each pass over a row with plain loops; to be
// run under the address and undefined-behaviour sanitizers. Each row lies in memory of exactly its size, so that a read
// beyond its end is seen.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "isa.h"
#include "order.h"
#include "penalties.h"
#include "sampler.h"

namespace {

std::mt19937_64 rng(7);

double uniform() { return std::uniform_real_distribution<double>(0, 1)(rng); }
bool chance(double p) { return uniform() < p; }
uint64_t fraction(double q) { return static_cast<uint64_t>(q * 0x1p+63) * 2; }

alea::Params params() {
  const float t = chance(0.1) ? 0.0f : static_cast<float>(std::pow(10, 4 * uniform() - 2));
  alea::Params p{};
  p.temperature = t == 0 ? 1 : t;
  p.inverse_temperature = t == 0 ? 0 : 1 / t;
  p.repetition = 1;
  p.top_k = chance(0.3) ? 1 + static_cast<int64_t>(rng() % 300) : 0;
  p.min_tokens_to_keep = chance(0.3) ? 1 + static_cast<int64_t>(rng() % 50) : 1;
  p.top_p = chance(0.4) ? fraction(uniform()) : ~uint64_t{0};
  p.min_p = chance(0.3) ? 1 + fraction(uniform()) : 0;
  p.typical_p = chance(0.3) ? fraction(uniform()) : ~uint64_t{0};
  p.epsilon_cutoff = chance(0.3) ? 1 + fraction(uniform()) : 0;
  p.eta_cutoff = chance(0.3) ? 1 + fraction(uniform()) : 0;
  p.sqrt_eta_cutoff = p.eta_cutoff;
  return p;
}

float logit(int kind) {
  if (kind == 0) return static_cast<float>(3 * std::normal_distribution<double>()(rng));
  if (kind == 1) return static_cast<float>(rng() % 4);
  if (kind == 2) return chance(0.5) ? -alea::kInfinity : static_cast<float>(uniform());
  if (kind == 3) return static_cast<float>(1e38 * (uniform() - 0.5));
  if (kind == 4) return chance(0.001) ? std::nanf("") : 1e-3f * static_cast<float>(uniform());
  return 1e-40f * static_cast<float>(uniform());
}

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s, %s\n", what, alea::isa_in_use().c_str());
  std::abort();
}

// The list of some tokens, in memory of exactly its size.
struct List {
  List(const std::vector<int32_t>& chosen, const std::vector<float>& all_x, const std::vector<int64_t>& all_w)
      : ids(chosen) {
    for (const int32_t id : ids)
      x.push_back(all_x[static_cast<size_t>(id)]), w.push_back(all_w[static_cast<size_t>(id)]);
  }
  std::vector<int32_t> ids;
  std::vector<float> x;
  std::vector<int64_t> w;
};

// `above` for a limit, and the edge of a random prefix by sorting.
void check_list(const alea::Passes& passes, const List& list, float limit) {
  alea::Above expected{0, 0, alea::kInfinity, -alea::kInfinity};
  for (size_t i = 0; i < list.ids.size(); ++i) {
    if (list.x[i] > limit) {
      expected.mass += list.w[i], ++expected.count, expected.least = std::min(expected.least, list.x[i]);
    } else {
      expected.next = std::max(expected.next, list.x[i]);
    }
  }
  const alea::Above above = passes.above(list.x.data(), list.w.data(), list.ids.size(), limit);
  require(above.mass == expected.mass && above.count == expected.count, "mass above a limit");
  require(above.least == expected.least && above.next == expected.next, "logits beside a limit");

  const int64_t all = std::accumulate(list.w.begin(), list.w.end(), int64_t{0});
  if (all == 0) return;
  const int64_t target = 1 + static_cast<int64_t>(rng() % static_cast<uint64_t>(all));
  std::vector<size_t> order(list.ids.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return list.x[a] > list.x[b]; });
  int64_t mass = 0;
  size_t count = 0;
  while (mass < target) mass += list.w[order[count++]];
  const alea::Tokens tokens{list.ids.data(), list.x.data(), list.w.data(), list.ids.size()};
  const alea::Limits limits{*std::min_element(list.x.begin(), list.x.end()), alea::kGreatest};
  const alea::Edge edge = alea::edge_reaching(tokens, limits, target, alea::kMass);
  require(edge.mass == mass && edge.count == count && edge.id == list.ids[order[count - 1]], "edge of a prefix");
  require(alea::held_mass(tokens, 0, tokens.size, edge) == mass, "mass of a prefix");
}

// Each pass over a row, compared with plain loops over its logits as float32.
void check_passes(alea::Row row, float inverse_temperature) {
  const alea::Passes& passes = *row.passes;
  std::vector<float> x(row.n), d(row.n), maxima(row.blocks());
  std::vector<int64_t> w(row.n), blocks(row.blocks());
  passes.widen(row.x, row.n, x.data());
  const alea::Extremes extremes = passes.maxima(row.x, row.n, maxima.data());
  const float m = *std::max_element(x.begin(), x.end());
  const bool is_valid =
      std::all_of(x.begin(), x.end(), [](float l) { return l < alea::kInfinity; }) && std::isfinite(m);
  require(std::isfinite(extremes.greatest) == is_valid, "whether a row is valid");
  if (!is_valid) return;
  require(extremes.greatest == m, "greatest logit");
  require(extremes.has_gaps == (std::count(x.begin(), x.end(), -alea::kInfinity) > 0), "whether a row has gaps");
  for (size_t i = 0; i < row.n; ++i) w[i] = alea::weight(alea::distance(x[i], m, inverse_temperature));
  std::vector<int64_t> weights(row.n);
  passes.weigh(x.data(), row.n, m, inverse_temperature, d.data(), weights.data());
  require(weights == w, "weights");
  const int64_t total = passes.masses(row.x, row.n, m, inverse_temperature, maxima.data(), blocks.data());
  require(total == std::accumulate(w.begin(), w.end(), int64_t{0}), "mass of a row");

  const float one = x[rng() % row.n], other = x[rng() % row.n];
  const float lowest = std::max(std::min(one, other), alea::kLowestFinite), highest = std::max(one, other);
  std::vector<int64_t> expected(row.blocks());
  std::vector<int32_t> between;
  size_t above = 0;
  for (size_t i = 0; i < row.n; ++i) {
    if (x[i] > highest) expected[i / alea::kBlock] += w[i], ++above;
    if (x[i] >= lowest && x[i] <= highest) between.push_back(static_cast<int32_t>(i));
  }
  std::vector<int32_t> ids(row.n + alea::kMargin);
  std::vector<float> logits(row.n + alea::kMargin);
  const alea::Split split = passes.split(row.x, row.n, m, inverse_temperature, maxima.data(), {lowest, highest},
                                         blocks.data(), ids.data(), logits.data());
  require(split.total == total && split.above == above && blocks == expected, "mass above both limits");
  require(split.mass == std::accumulate(blocks.begin(), blocks.end(), int64_t{0}), "mass above both limits in all");
  ids.resize(split.between);
  logits.resize(split.between);
  require(ids == between && logits == List(between, x, w).x, "tokens between the limits");
  if (!ids.empty()) check_list(passes, List(ids, x, w), x[rng() % row.n]);
}

template <typename T>
void draw(alea::Workspace& work, alea::Type type, size_t n, int kind) {
  std::unique_ptr<T[]> x(new T[n]);
  for (size_t i = 0; i < n; ++i) {
    const float value = logit(kind);
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if constexpr (sizeof(T) == 2) {
      x[i] = static_cast<T>(type == alea::kBfloat16 ? bits >> 16 : rng());  // any bits are a float16
    } else {
      x[i] = value;
    }
  }
  const alea::Row row{x.get(), n, &alea::passes(type)};
  const alea::Params p = params();
  check_passes(row, p.is_greedy() ? 1 : p.inverse_temperature);
  const alea::Draw drawn = alea::sample_row(work, row, p, rng(), chance(0.3));
  if (drawn.token >= static_cast<int64_t>(n) || (drawn.token >= 0 && drawn.total <= 0)) std::abort();
  if (alea::keep(work, row, p) != (drawn.token >= 0)) std::abort();
  if (drawn.token >= 0) alea::model_logprob(work, row, drawn.token);
  const int64_t ids[] = {0, -1, static_cast<int64_t>(n), static_cast<int64_t>(n) - 1};
  const float bias = 0.5f;
  const std::unique_ptr<bool[]> allowed(new bool[n]);
  const std::unique_ptr<uint32_t[]> words(new uint32_t[(n + 31) / 32]());
  for (size_t i = 0; i < n; ++i) {
    allowed[i] = chance(0.5);
    words[i / 32] |= uint32_t{allowed[i]} << i % 32;
  }
  const uint64_t bits = rng();
  alea::Penalties mask{};
  mask.allowed = allowed.get();
  const alea::Draw by_bools = alea::sample_row(work, alea::penalise(work, row, mask, p), p, bits, false);
  mask.allowed = nullptr, mask.allowed_bits = words.get();
  const alea::Draw by_bits = alea::sample_row(work, alea::penalise(work, row, mask, p), p, bits, false);
  if (by_bools.token != by_bits.token || by_bools.total != by_bits.total) std::abort();
  if (by_bits.token >= 0 && !allowed[static_cast<size_t>(by_bits.token)]) std::abort();
  alea::Params penalised{};
  penalised.repetition = 1.5f, penalised.presence = 0.5f, penalised.frequency = -0.5f;
  alea::penalise(work, row, {ids, &bias, 1, nullptr, words.get(), ids, 4, 1}, penalised);
}

}  // namespace

int main(int count, char** arguments) {
  const int rows = count > 1 ? std::atoi(arguments[1]) : 1000;
  for (const std::string& isa : alea::available_isas()) {
    alea::use_isa(isa);
    alea::Workspace work;
    for (int i = 0; i < rows; ++i) {
      const size_t n = 1 + rng() % (chance(0.1) ? 30000 : 400);
      const int kind = static_cast<int>(rng() % 6);
      if (i % 3 == 0) draw<float>(work, alea::kFloat32, n, kind);
      if (i % 3 == 1) draw<uint16_t>(work, alea::kFloat16, n, kind);
      if (i % 3 == 2) draw<uint16_t>(work, alea::kBfloat16, n, kind);
    }
    std::printf("%s %d\n", isa.c_str(), rows);
  }
}
