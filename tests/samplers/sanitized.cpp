// Draws from rows of every kind with every mix of filters, to be run under the address and undefined-behaviour
// sanitizers. Each row lies in memory of exactly its size, so that a read beyond its end is seen.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>

#include "isa.h"
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
